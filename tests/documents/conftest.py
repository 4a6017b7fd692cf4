"""A copy of the code with the tiny cascade trained in it, in which pages can add files and run commands."""

import shutil
from contextlib import chdir
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from PIL import Image, ImageDraw

from dataset_tools.__main__ import main as dataset_tools
from train.config import config_from_plain
from train.loop import run

ROOT = Path(__file__).parents[2]
ROOMS = ("gdf", "modules", "dataset_tools", "train", "inference", "configs")
CHAIN = ("stage_a", "stage_b", "previewer", "stage_c")
QUICK = ["run.num_steps=2", "run.save_every=2", "run.sample_every=0", "recipe.random_scale=[1,1]"]


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with outputs/tiny and data/mine as the README's commands leave them, and photo.png."""
    folder = tmp_path_factory.mktemp("trained")
    photos = folder / "photos"
    photos.mkdir()
    for i in range(12):
        photo(i).save(photos / f"{i}.png")
        (photos / f"{i}.txt").write_text(f"a cup of coffee, the number {i}")
    photo(3).save(folder / "photo.png")
    with chdir(folder):
        assert dataset_tools(["pack", "photos", "data/mine"]) == 0
        for stage in CHAIN:
            with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
                overrides = QUICK if stage == "stage_b" else QUICK[:-1]
                made = compose("train", [f"experiment=tiny/{stage}", "data.shards=data/mine", *overrides])
            run(config_from_plain(OmegaConf.to_container(made, resolve=True)))  # type: ignore[arg-type]
    return folder


@pytest.fixture
def workspace(trained: Path, tmp_path: Path) -> Path:
    """Code, configs, data and weights, to be changed at will."""
    for room in ROOMS:
        shutil.copytree(ROOT / room, tmp_path / room, ignore=shutil.ignore_patterns("__pycache__", "*.ipynb"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)  # the version, for the records of pictures
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    return tmp_path


def photo(seed: int) -> Image.Image:
    """A disc on a ground, 72 x 64 px, sharp."""
    made = Image.new("RGB", (72, 64), (17 * seed % 255, 90, 200 - 9 * seed))
    ImageDraw.Draw(made).ellipse((10 + seed, 12, 40 + seed, 50), fill=(230, 220, 40 + 12 * seed))
    return made
