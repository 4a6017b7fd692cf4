"""A scratch workspace that looks like the root of a fresh clone, for the commands of the guides."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Collection, Iterator
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image, ImageDraw

from tests.guides.pages import ROOT, Block, blocks

SOURCE = (
    *("benchmarks", "configs", "dataset_tools", "docs", "gdf", "inference", "modules", "scripts", "train"),
    *("Makefile", "README.md", "pyproject.toml"),
)
CAPTIONS = ["a cup of coffee on a table", "a red circle", "a photo of [me] on a beach", "a house at night"]
Workspace = Callable[..., Path]


def environment() -> dict[str, str]:
    """In which `python` and `torchrun` are those of these tests; one thread each, without a GPU."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    alone = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return {**os.environ, **alone, "PATH": path, "PYTHONPATH": ""}


def run(command: list[str], folder: Path, timeout_s: float = 600) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=timeout_s
    )


def run_page(page: Path, folder: Path, elsewhere: Collection[str] = ()) -> None:
    """Run what is marked on a page, in its order; the first failure ends it.

    elsewhere: blocks of Python that another page's test runs word for word; they are passed over.
    """
    marked = (block for block in blocks(page) if block.runs and block.text not in elsewhere)
    for python, group in groupby(marked, lambda block: block.language == "python"):
        together = list(group)
        for command in [python_command(together)] if python else [block.command() for block in together]:
            done = run(command, folder)
            assert done.returncode == 0, f"{page}\n{command[-1]}\n{done.stdout}\n{done.stderr}"
            assert "Traceback" not in done.stderr, f"{page}\n{command[-1]}\n{done.stderr}"


def python_command(together: list[Block]) -> list[str]:
    """One process for blocks of Python that follow one another: starting one takes longer than most of them.

    Each has names of its own; a traceback tells its place on the page.
    """
    lines = [f"exec(compile({block.text!r}, {str(block)!r}, 'exec'), {{}})" for block in together]
    return ["python", "-c", "\n".join(lines)]


def write_photos(folder: Path) -> None:
    """Twelve pictures with captions, large enough for the small trainings, and a mask."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(12):
        picture = Image.new("RGB", (96 + 16 * (number % 3), 96), tuple(map(int, rng.integers(0, 255, 3))))
        left, top = map(int, rng.integers(0, 40, 2))
        colour = tuple(map(int, rng.integers(0, 255, 3)))
        ImageDraw.Draw(picture).ellipse((left, top, left + 50, top + 50), fill=colour)
        picture.save(folder / f"{number:02d}.jpg", quality=90)
        (folder / f"{number:02d}.txt").write_text(CAPTIONS[number % len(CAPTIONS)] + "\n")


def fresh_clone(folder: Path) -> Path:
    folder.mkdir()
    for name in SOURCE:
        (folder / name).symlink_to(ROOT / name)
    write_photos(folder / "photos")
    return folder


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with outputs/tiny and outputs/demo, which hold every kind of network, hardly trained.

    One for all processes that share the tests; none of them changes it.
    """
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent
    place, done = base / "guides", base / "guides.done"
    with FileLock(base / "guides.lock"):
        if not done.exists():
            shutil.rmtree(place, ignore_errors=True)  # of a process that failed
            place.mkdir()
            train_all(fresh_clone(place / "kaskade"))
            done.touch()
    return place / "kaskade"


def train_all(folder: Path) -> None:
    maker = Path(__file__).with_name("make_runs.py").read_text()
    for command in (["-m", "dataset_tools", "pack", "photos", "data/mine"], ["-c", maker]):
        done = run([sys.executable, *command], folder)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def workspace(tmp_path: Path, trained: Path) -> Iterator[Workspace]:
    """Makes a fresh clone with pictures, and with the named folders of trained networks."""
    made: list[Path] = []

    def make(*outputs: str) -> Path:
        made.append(fresh_clone(tmp_path / "kaskade"))
        for name in outputs:
            shutil.copytree(trained / "outputs" / name, made[0] / "outputs" / name)
        return made[0]

    yield make
    for folder in made:
        shutil.rmtree(folder, ignore_errors=True)  # dozens of runs of small networks add up
