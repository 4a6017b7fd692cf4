"""A class named in the settings is called only if the command line allows it by name."""

import sys
from pathlib import Path

import pytest

from inference import __main__ as draw
from tests.integration.launching import ROOT, environment, launched
from tests.integration.tiny_experiment import EXPERIMENT
from train import __main__ as cli

CALLBACK = """\
from hydra.experimental.callback import Callback

class Mark(Callback):
    def __init__(self, path):
        self.path = path
        self.write("made")

    def on_job_start(self, **_):
        self.write("job")

    def write(self, word):
        with open(self.path, "a") as file:
            print(word, file=file)
"""
NAME = "hydra.callbacks.mark._target_=marks.Mark"
ALLOWED = "allow_targets=[marks.Mark]"


@pytest.fixture
def canary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the callback `marks.Mark` writes to; the working folder holds its module and can be imported."""
    (tmp_path / "marks.py").write_text(CALLBACK)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["command"])
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path / "canary"


def refused(status: int, capsys: pytest.CaptureFixture, canary: Path) -> str:
    """What was said; checks that it is one line that says how to allow it, and that nothing was called."""
    said = capsys.readouterr().err.strip()
    assert status == 2 and said.startswith("error: ") and "\n" not in said and "allow_targets" in said, said
    assert not canary.exists()
    return said


@pytest.mark.parametrize(
    ("opted_in", "status", "words"), [([], 2, None), ([ALLOWED], 0, ["made", "job", "job"])]
)
def test_a_callback_runs_only_when_it_is_allowed(
    opted_in: list[str], status: int, words: list[str] | None, canary: Path, shards: Path
) -> None:
    folder = canary.parent / "configs"
    (folder / "experiment").mkdir(parents=True)
    (folder / "experiment" / "tiny.yaml").write_text(EXPERIMENT.format(shards=shards, out=canary.parent))
    command = [sys.executable, "-m", "train", "--multirun", f"--config-dir={folder}", "experiment=tiny"]
    short = ["run.seed=1,2", "run.num_steps=1", "run.save_every=1", "run.sample_every=0"]
    around = environment(PYTHONPATH=f"{ROOT}:{canary.parent}")
    done = launched([*command, *short, NAME, f"hydra.callbacks.mark.path={canary}", *opted_in], env=around)
    assert done.returncode == status, done.stderr
    assert (canary.read_text().split() if canary.exists() else None) == words
    assert words or "allow_targets=[marks.Mark]" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        [NAME],
        [NAME, "allow_targets=[marks.Other]"],
        [NAME, "allow_targets=[marks]", "name=x"],
        [NAME, "allow_targets=[]"],
        [NAME, "++allow_targets=[marks.Mark]"],
        [f"{NAME},os.system", ALLOWED],
        ["hydra.callbacks.mark={_target_: marks.Mark}", ALLOWED],
        ["hydra.callbacks.mark.path={_target_: os.system}", ALLOWED],
        ["hydra.launcher._target_=marks.Mark"],
        ["hydra.sweeper._target_=marks.Mark"],
        ["recipe._target_=marks.Mark", ALLOWED],
        ["name=get_", """hydra.callbacks.mark='${oc.create:"{_tar${name}: marks.Mark, path: canary}"}'"""],
    ],
)
def test_all_else_is_refused(arguments: list[str], canary: Path, capsys: pytest.CaptureFixture) -> None:
    refused(cli.main(["experiment=tiny/previewer", *arguments]), capsys, canary)


@pytest.mark.parametrize("part", ["launcher", "sweeper"])
def test_launchers_and_sweepers_are_plugins(part: str, canary: Path, capsys) -> None:
    arguments = [f"hydra.{part}._target_=marks.Mark", ALLOWED]
    assert cli.main(["--multirun", "experiment=tiny/previewer", *arguments]) == 2
    said = capsys.readouterr().err.strip()
    assert f"hydra.{part}._target_: expected a plugin" in said and "\n" not in said and not canary.exists()


def test_a_class_in_a_folder_of_settings_needs_a_word_too(canary: Path, capsys) -> None:
    (canary.parent / "mine" / "local").mkdir(parents=True)
    own = f"# @package _global_\nhydra: {{callbacks: {{mark: {{_target_: marks.Mark, path: {canary}}}}}}}\n"
    (canary.parent / "mine" / "local" / "default.yaml").write_text(own)
    arguments = ["--config-dir=mine", "experiment=tiny/previewer", "run.num_stepz=1"]
    said = refused(cli.main(arguments), capsys, canary)
    assert "hydra.callbacks.mark._target_: marks.Mark is not called" in said
    assert cli.main([*arguments, ALLOWED]) == 2  # of the misspelt key, when the job has begun
    assert canary.read_text().split() == ["made", "job"]


def test_files_cannot_allow_classes(canary: Path, capsys) -> None:
    (canary.parent / "mine" / "local").mkdir(parents=True)
    own = "# @package _global_\nallow_targets: [marks.Mark]\n"
    (canary.parent / "mine" / "local" / "default.yaml").write_text(own)
    refused(cli.main(["--config-dir=mine", "experiment=tiny/previewer", NAME]), capsys, canary)
    assert cli.main(["--config-dir=mine", "experiment=tiny/previewer"]) == 2
    assert "allow_targets: unknown key" in capsys.readouterr().err


def test_drawing_pictures_takes_the_same_word(canary: Path, capsys) -> None:
    arguments = ["run=nowhere", "prompt=a _target_ cat", NAME, f"hydra.callbacks.mark.path={canary}"]
    refused(draw.main(arguments), capsys, canary)
    assert draw.main([*arguments, ALLOWED]) == 2  # there is no run
    assert canary.read_text().split() == ["made", "job"] and "nowhere" in capsys.readouterr().err
