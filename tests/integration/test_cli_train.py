"""`python -m train`: composes, runs, sweeps, explains; a mistake is one line and exit status 2."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from train import __main__ as cli

ROOT = Path(__file__).parents[2]


def test_an_experiment_runs_with_changes_from_the_command_line(call, tmp_path) -> None:
    assert call("experiment=tiny", "optim.lr=5e-4", "tracker=[csv,tensorboard]", "run.num_steps=3") == 0
    settings = yaml.safe_load((tmp_path / "out" / "config.yaml").read_text())
    assert settings["optim"]["lr"] == 5e-4 and settings["run"]["num_steps"] == 3
    assert (tmp_path / "out" / "weights" / "previewer.safetensors").exists()
    assert (tmp_path / "out" / "samples" / "step_00000002.png").exists()
    assert (tmp_path / "out" / "metrics.csv").exists() and (tmp_path / "out" / "tensorboard").is_dir()
    assert {path.name for path in tmp_path.iterdir()} == {"configs", "out"}, "Hydra leaves nothing of its own"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["experiment=tiny", "optim.lrr=1"], "optim.lrr: unknown key; did you mean 'lr'?"),
        (["experiment=tiny", "+extra=1"], "extra: unknown key; "),
        (["experiment=tiny", "+run.num_step=1"], "run.num_step: unknown key; did you mean 'num_steps'?"),
        (["experiment=tiny", "run.num_steps=many"], "run.num_steps: expected a whole number, found 'many'"),
        (["experiment=tiny", "run.precision=bf61"], "run.precision: found 'bf61'; did you mean 'bf16'?"),
        (
            ["experiment=tiny", "recipe.l2_weigt=1"],
            "recipe.l2_weigt: unknown key; did you mean 'l2_weight'?",
        ),
        (["experiment=tiny", "model.previewer.config.c_hiden=8"], "did you mean 'c_hidden'?"),
        (["experiment=tiny", "data.shards=???"], "data.shards: missing"),
        (["experiment=tiny", "data.shards=nowhere"], "nowhere"),
        (["experiment=tiny", "model.previewer.weights=nowhere"], "model.previewer.weights: no file"),
        (["experiment=tiny", "run.keep_every=3"], "run.keep_every: expected a multiple"),
        (["experiment=tiny", "optim.players.other.lr=1.0"], "optim.players.other: unknown player"),
        (["experiment=tiny", "parallel=fspd"], "parallel/fspd: no such option; did you mean 'fsdp'?"),
        (["experiment=tiny", "exprimnt=x"], "exprimnt: unknown key; did you mean 'experiment'?"),
        (["experiment=tiny", "run.num_steps=[1"], "run.num_steps=[1"),
        (["experiment=tiny", "name=${nothing}"], "nothing"),
        (["experiment=tiny", "run.num_steps=1,2"], "run.num_steps=1,2: several values; write [1,2]"),
        (["experiment=tiny", "optim=null"], "optim/null: no such option; expected one of: adamw"),
        (["experiment=tiny", "optim.lr=null"], "optim.lr: expected a number, found null"),
        (["experiment=tiny", "data.filters.x=1"], "x: set in a list, whose parts have no names"),
        (["experiment=tiny", "name="], "name: missing; expected text, by which the run is called"),
        (["experiment=tiny", f"run.dir={__file__}"], "run.dir: expected a folder, found the file"),
        (["experiment=tiny", "--lr", "3"], "settings are written without dashes: lr=VALUE"),
        (["experiment=tiny", "--config-name", "x"], "x: no such option; leave --config-name out"),
        (["experiment=tiny", "--resolve"], "--resolve flag can only be used in conjunction with --cfg"),
        (["tiny/lora"], "tiny/lora: no setting; did you mean 'experiment=tiny/lora'?"),
        (["run.num_steps=1"], "experiment: missing; expected one of:"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(call, capsys, tmp_path, arguments, message) -> None:
    assert call(*arguments) == 2
    said = capsys.readouterr().err.strip()
    assert message in said and said.startswith("error: ") and "\n" not in said
    assert not (tmp_path / "out").exists()


def test_a_wrong_experiment_names_the_nearest(call, capsys, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(cli, "CONFIGS", tmp_path / "own")
    (tmp_path / "own" / "experiment" / "demo").mkdir(parents=True)
    for name in ("stage_a", "stage_c"):
        (tmp_path / "own" / "experiment" / "demo" / f"{name}.yaml").write_text("# Something\n")
    (tmp_path / "own" / "train.yaml").write_text("defaults: [{experiment: null}]\n")
    assert call("experiment=demo/stage_cc") == 2
    assert "experiment/demo/stage_cc: no such option; did you mean 'demo/stage_c'?" in capsys.readouterr().err


def test_a_sweep_gives_every_job_a_folder(call, tmp_path) -> None:
    assert call("experiment=tiny", "--multirun", "optim.lr=1e-3,1e-4", "run.sample_every=0") == 0
    folders = {path.name for path in (tmp_path / "out").iterdir() if path.is_dir()}
    assert folders == {"optim.lr=0.001,run.sample_every=0", "optim.lr=0.0001,run.sample_every=0"}


def test_a_sweep_over_experiments_gives_each_a_folder(call, tmp_path) -> None:
    """In one they would go on from each other's weights."""
    experiment = tmp_path / "configs" / "experiment" / "tiny.yaml"
    experiment.with_name("other.yaml").write_text(experiment.read_text().replace("name: tiny", "name: other"))
    assert call("experiment=tiny,other", "--multirun", "run.sample_every=0") == 0
    folders = {path.name for path in (tmp_path / "out").iterdir() if path.is_dir()}
    assert folders == {f"run.sample_every=0,experiment={name}" for name in ("tiny", "other")}


@pytest.mark.parametrize(
    ("arguments", "place"),
    [
        (["experiment=tiny", "run.seed=1,2"], "out"),
        (["experiment=tiny,tiny/stage_a"], "outputs/sweep"),
        (["experiment=tiny,tiny/stage_a", "debug=smoke"], "outputs/sweep"),
        (["experiment=tiny,tiny/stage_a", "run.dir=mine"], "mine"),
        (["experiment=tiny,tiny/stage_a", "run.dir='mine/${name}'"], "outputs/sweep"),
        (["experiment=tiny,tiny/stage_a", "run.dir=mine,other"], "outputs/sweep"),
        (["experiment=tiny,tiny/stage_a", "name=mine"], "outputs/mine"),
        (["run.seed=1,2"], "outputs/sweep"),
    ],
)
def test_what_is_written_about_a_sweep_has_a_named_place(call, tmp_path, arguments, place) -> None:
    """No job begins: each has a mistake."""
    assert call("--multirun", "run.num_steps=none", *arguments) == 2
    assert [str(path.parent.relative_to(tmp_path)) for path in tmp_path.rglob("multirun.yaml")] == [place]
    assert not list(tmp_path.rglob("None"))


def test_a_sweep_goes_on_after_a_mistake_and_remembers_it(call, tmp_path) -> None:
    assert call("--multirun", "experiment=tiny", "run.precision=fp61,fp32", "run.sample_every=0") == 2
    assert len([path for path in (tmp_path / "out").iterdir() if path.is_dir()]) == 1


def test_help_lists_every_experiment_with_its_purpose(call, capsys) -> None:
    assert call("--help") == 0
    said = capsys.readouterr().out
    assert all(f"  {name}" in said for name in cli.experiments()) and "debug=smoke" in said


def test_the_settings_can_be_looked_at_without_running(call, capsys, tmp_path) -> None:
    assert call("--cfg", "job", "experiment=tiny", "run.num_steps=7") == 0
    assert yaml.safe_load(capsys.readouterr().out)["run"]["num_steps"] == 7
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("debug", ["smoke", "overfit", "profile"])
def test_an_experiment_is_tried_out_in_a_folder_of_its_own(call, tmp_path, debug) -> None:
    assert call("experiment=tiny", f"debug={debug}", "run.num_steps=4") == 0
    folder = tmp_path / "outputs" / "debug" / debug / "tiny"
    assert (folder / "weights" / "previewer.safetensors").exists() and not (tmp_path / "out").exists()
    assert (folder / "profile").exists() == (debug == "profile")


def test_a_real_process_ends_with_the_status_and_without_a_traceback() -> None:
    command = [sys.executable, "-m", "train", "run.seeed=1"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


CHECKED = """\
import sys
from train.__main__ import main
assert main(sys.argv[1:]) == 2
print(*sys.modules)
"""


def test_settings_are_checked_before_what_networks_are_made_of_is_loaded() -> None:
    """It takes longer to load than all else."""
    command = [sys.executable, "-c", CHECKED, "experiment=tiny/lora", "data.shards=nowhere"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "error: " in done.stderr, done.stderr
    loaded = set(done.stdout.split())
    assert "train.recipes.lora" in loaded
    assert not {"torchvision", "torch._dynamo", "transformers.modeling_utils"} & loaded


def test_loggers_stay_on_so_that_skipped_samples_are_named(call, caplog) -> None:
    assert call("experiment=tiny") == 0
    logging.getLogger("dataset_tools.stream").warning("still heard")
    assert "still heard" in caplog.text
