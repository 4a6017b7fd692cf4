"""The Dockerfile and what its container does, as far as that shows without Docker."""

import os
import re
import shutil
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("gdf", "modules", "dataset_tools", "train", "inference", "scripts")


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions, in order, each with the rest of its line."""
    text = re.sub(r"\\\n", " ", (ROOT / "Dockerfile").read_text())
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(name, rest.strip()) for name, _, rest in (line.partition(" ") for line in lines)]


def rest_of(name: str) -> list[str]:
    return [rest for each, rest in instructions() if each == name]


def image(folder: Path) -> Path:
    """A folder with just the files that the image has, and its entrance."""
    for copy in rest_of("COPY"):
        *sources, target = copy.split()
        for source in sources:
            into = folder / target if target != "./" else folder / source
            if (ROOT / source).is_dir():
                shutil.copytree(ROOT / source, into, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(ROOT / source, into)
    return folder


def contained(folder: Path, *words: str, path: str = "") -> subprocess.CompletedProcess[str]:
    """Run the entrance in the image's folder."""
    entrance = [str(part) for part in eval_list(rest_of("ENTRYPOINT")[0])]
    around = {**os.environ, "PATH": f"{path or Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    around.pop("PYTHONPATH", None)
    return subprocess.run(
        [*entrance, *words], cwd=folder, env=around, capture_output=True, text=True, timeout=900
    )


def eval_list(text: str) -> list[str]:
    """The parts of an instruction in exec form."""
    return re.findall(r'"([^"]*)"', text)


@pytest.fixture
def words(tmp_path: Path) -> Path:
    """A folder with a `python` that says what it was asked to do."""
    (tmp_path / "bin").mkdir()
    for name in ("python", "torchrun"):
        stand_in = tmp_path / "bin" / name
        stand_in.write_text(f'#!/bin/sh\nprintf "%s|" {name} "$@"\n')
        stand_in.chmod(0o755)
    return tmp_path / "bin"


def test_the_image_is_pinned_and_runs_as_nobody_special() -> None:
    names = [name for name, _ in instructions()]
    assert names[:2] == ["ARG", "FROM"]
    assert re.fullmatch(r"BASE=python:3\.\d+-slim-\w+", rest_of("ARG")[0])
    requirements = (ROOT / "requirements.txt").read_text().splitlines()
    assert all("==" in line for line in requirements if line and not line.startswith("#"))
    assert rest_of("USER") == ["kaskade"]
    assert max(i for i, name in enumerate(names) if name in ("RUN", "COPY")) < names.index("USER")
    for name in ("ENTRYPOINT", "CMD", "VOLUME"):
        assert rest_of(name)[0].startswith("["), f"{name}: signals would go to a shell"
    assert "ADD" not in names


def test_what_is_copied_is_there_and_is_not_left_out() -> None:
    """And nothing of what people have in the folder besides: weights, pictures, data."""
    ignored = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    copied = {source for copy in rest_of("COPY") for source in copy.split()[:-1]}
    assert all((ROOT / source).exists() for source in copied)
    assert not [source for source in copied for pattern in ignored if fnmatch(source, pattern)]
    assert copied == {*PACKAGES, "configs", "requirements.txt", "pyproject.toml", "LICENSE"}


def test_the_files_of_the_image_are_enough(tiny_runs: Path, tmp_path: Path) -> None:
    folder = image(tmp_path)
    settings = ["task=preview", "stage_c.steps=1", "seed=1", "prompt=a red circle", f"run={tiny_runs}"]
    done = contained(folder, "inference", *settings)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "outputs/pictures/a-red-circle_1.png\n"


@pytest.mark.parametrize(
    ("typed", "done"),
    [
        (["inference", "prompt=a red circle"], "python|-m|inference|prompt=a red circle|"),
        (["train", "experiment=x"], "python|-m|train|experiment=x|"),
        (["app", "run=r"], "python|-m|inference.app|host=0.0.0.0|port=7860|run=r|"),
        (["monitor", "run=r"], "python|-m|train.monitor|host=0.0.0.0|port=7860|run=r|"),
        (["download", "--list"], "python|-m|scripts.download_models|--list|"),
        (["torchrun", "-m", "train"], "torchrun|-m|train|"),
    ],
)
def test_words_lead_to_commands(words: Path, typed: list[str], done: str) -> None:
    assert contained(ROOT, *typed, path=str(words)).stdout == done


def test_other_words_are_a_mistake_and_none_is_help() -> None:
    wrong = contained(ROOT, "picture")
    assert (wrong.returncode, wrong.stderr.count("\n")) == (2, 1)
    assert "error: picture: expected inference, train" in wrong.stderr
    for name in eval_list(rest_of("CMD")[0]), []:
        assert "docker run kaskade WORD" in contained(ROOT, *name).stdout


@pytest.mark.skipif(not Path("/proc/1/cmdline").exists(), reason="asks Linux what the container runs")
def test_a_container_without_a_page_is_healthy() -> None:
    assert contained(ROOT, "healthy").returncode == 0
