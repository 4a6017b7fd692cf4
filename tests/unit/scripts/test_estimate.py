"""The estimate on paper: what is counted is counted right, and what is assumed can be changed."""

import subprocess
import sys
from pathlib import Path

import pytest

from scripts.estimating import arguments, assume, estimate, main, settings
from train.budget.course import Counted, course, storage
from train.budget.gpus import GPUS, gpu

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def plain():
    return settings(["experiment=train/stage_c_1b", "parallel=hsdp"])


def assumed(*options: str):
    return assume(arguments().parse_args(options))


def test_figures_follow_from_settings_and_assumptions(plain):
    options = assumed("--gpus", "64", "--gpus-per-node", "8", "--pictures", "256e6", "--price", "3")
    each = Counted(1e12, 2e12, 1e12, 1_030_785_040, 1_030_785_040)
    found = course(plain, each, options)
    assert found["pictures in all"] == "512 M, 2 epochs"
    seconds = 16 * 4e12 / (0.4 * 989e12)
    assert found["step"].startswith(f"{seconds:.3g} s for 1024 pictures, {1024 / seconds:.3g} pictures/s")
    hours = seconds * 500_000 / 3600
    assert found["cost"] == f"{hours * 64 * 3:.4g}, assumed 3 per GPU and hour"
    # Shards of 8: gathered twice in bf16, gradients scattered in fp32.
    assert found["traffic per GPU within its group"] == f"{8 * 1.030785 * 7 / 8 / seconds:.1f} GB/s"
    assert storage(plain, each, options)["checkpoint"].startswith("16 GB")
    assert "traffic per GPU within its group" not in course(plain, each, assumed())


def test_a_page_of_figures_of_a_small_run(capsys):
    assert main(["experiment=tiny/lora", "--gpu", "t4", "--price", "1"]) == 0
    page = capsys.readouterr().out
    assert page.count("\n") < 50 and all(len(line) < 160 for line in page.splitlines())
    assert "learn" in page and "frozen: stage_c" in page and "memory=8gb" in page
    assert "course on 1 x t4 (by its data sheet), assumed" in page


def test_a_preset_is_told_of_as_training_would_set_it():
    found = estimate(settings(["experiment=tiny/lora", "memory=8gb"]), assumed())
    assert found["memory per GPU, counted"]["chosen"].startswith("memory=8gb: nothing is needed; expected")


def test_the_present_machine_is_measured():
    present = gpu("present")
    assert present.bf16 > 0 and present.fp32 > 0 and "measured" in present.source
    assert {"a100", "h100", "h200", "rtx3060", "rtx4090"} <= GPUS.keys()
    for each in GPUS.values():
        assert each.bf16 > each.fp32 > 1 and each.memory_gb >= 12 and each.bandwidth_gb_s >= 300


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["experiment=train/stage_c_1"], "did you mean"),
        (
            ["experiment=tiny/lora", "--gpu", "h1000"],
            "no GPU is known as 'h1000'; did you mean 'h100'?",
        ),
        (["experiment=tiny/lora", "data.batch_sise=1"], "data.batch_sise: unknown key"),
        ([], "experiment: missing"),
    ],
)
def test_a_mistake_is_one_line(capsys, arguments, message):
    assert main(arguments) == 2
    line = capsys.readouterr().err
    assert message in line and line.count("\n") == 1


def test_it_starts_as_a_file_and_as_a_module():
    for command in ([str(ROOT / "scripts" / "estimate.py")], ["-m", "scripts.estimate"]):
        done = subprocess.run(
            [sys.executable, *command, "--help"], cwd=ROOT, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0 and "experiment=finetune/lora_stage_c_3_6b" in done.stdout
