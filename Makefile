# Kaskade: `make demo` and `make test` are all a new user needs; both set themselves up.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/pip install --quiet --no-compile --disable-pip-version-check

.PHONY: help setup setup-dev demo demo-adapters app notebooks docs test test-quick bench check format clean
.DELETE_ON_ERROR:

help:
	@echo "make demo        set up, draw the demo's data, train A, B, previewer and C on the CPU, sample pictures"
	@echo "make demo-adapters  after it: train LoRA, ControlNets, IP-Adapter and LCM on the demo's models, and judge them"
	@echo "make app         after the demo: a web page that draws with its models"
	@echo "make notebooks   after demo-adapters: execute the notebooks with the demo's models, save them with their pictures"
	@echo "make docs        build the guides as a site into site/"
	@echo "make test        set up, run all tests but the heavy ones"
	@echo "make test-quick  the quick part of the tests"
	@echo "make bench       measure ours beside diffusers, peft and webdataset on the CPU (20 to 30 minutes; keep the machine quiet)"
	@echo "make check       lint, format, spelling and types (as on this system, and as on Windows)"
	@echo "make setup       only the environment ($(VENV))"
	@echo "make clean       remove the demo's output (not the environment)"

setup: $(VENV)/.runtime

setup-dev: $(VENV)/.dev

$(VENV)/.runtime: requirements.txt
	@echo "Setting up $(VENV): PyTorch and friends, about 5.5 GB on disk. This takes a few minutes the first time."
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(v < (3, 11) and f"Python: expected 3.11 or newer, found {v.major}.{v.minor}; name another with `make PYTHON=python3.11`")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(INSTALL) -r requirements.txt
	@touch $@

$(VENV)/.dev: requirements-dev.txt $(VENV)/.runtime
	@echo "Adding the test tools to $(VENV)"
	@$(INSTALL) -r requirements-dev.txt
	@touch $@

demo: setup
	@$(BIN)/python -m scripts.demo

demo-adapters: demo
	@$(BIN)/python -m scripts.demo_adapters

app: setup
	@$(BIN)/python -m inference.app run=outputs/demo open_browser=true

notebooks: setup-dev
	@$(BIN)/python -m scripts.run_notebooks

docs: setup-dev
	@$(BIN)/mkdocs build --strict --site-dir site

# Idle threads sleep at once: processes that share the cores, as tests do, run several times faster.
test test-quick: export OMP_WAIT_POLICY ?= PASSIVE
test test-quick: export GOMP_SPINCOUNT ?= 0

test: setup-dev
	$(BIN)/python -m pytest -m "not slow and not gpu" -n 2 --dist loadfile --no-loadscope-reorder --durations 20

test-quick: setup-dev
	$(BIN)/python -m pytest -m "not slow and not gpu" tests/unit tests/architecture tests/oracle -n 2

bench: setup-dev
	$(BIN)/python -m benchmarks
	$(BIN)/python -m benchmarks table

check: setup-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	$(BIN)/mypy
	$(BIN)/mypy --platform win32 --cache-dir .mypy_cache/win32

format: setup-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf outputs/demo
