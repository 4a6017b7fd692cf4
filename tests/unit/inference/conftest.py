"""Small adapters, a cascade that can use them, and pictures to look at."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from inference import Cascade
from tests.adapter_files import write_adapters


@pytest.fixture(scope="session")
def adapters(tiny_runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the runs that `tests.adapter_files` names."""
    return write_adapters(tiny_runs, tmp_path_factory.mktemp("adapters"))


@pytest.fixture(scope="module")
def cascade(tiny_runs: Path) -> Cascade:
    return Cascade.load(str(tiny_runs), device="cpu", image_encoder=str(tiny_runs / "image_encoder"))


@pytest.fixture
def photo(tmp_path: Path) -> str:
    """Noise, 64 x 48."""
    return noise(tmp_path / "photo.png", 0)


@pytest.fixture
def other_photo(tmp_path: Path) -> str:
    return noise(tmp_path / "other.png", 1)


@pytest.fixture
def mask(tmp_path: Path) -> str:
    """White in the right half of the photo, 64 x 48."""
    image = Image.new("L", (64, 48))
    ImageDraw.Draw(image).rectangle((32, 0, 63, 47), fill=255)
    image.save(tmp_path / "mask.png")
    return str(tmp_path / "mask.png")


def noise(path: Path, seed: int) -> str:
    pixels = np.random.default_rng(seed).integers(0, 256, (48, 64, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return str(path)
