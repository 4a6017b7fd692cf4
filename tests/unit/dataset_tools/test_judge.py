"""The judge reads back what the demo's program draws, also after resizing and JPEG compression."""

import io

import numpy as np
import pytest
from PIL import Image

from dataset_tools.judge import read
from dataset_tools.shapes_world import BACKGROUNDS, OBJECTS, Scene, all_scenes, background, draw


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer)


def resized(image: Image.Image, size_px: int) -> Image.Image:
    return image.resize((size_px, size_px), Image.Resampling.BICUBIC)


CHANGES = {
    "as drawn": lambda image: image,
    "shrunk": lambda image: resized(image, 48),
    "enlarged": lambda image: resized(image, 200),
    "JPEG": lambda image: jpeg(image, 60),
    "enlarged, then JPEG": lambda image: jpeg(resized(image, 96), 50),
}


@pytest.mark.parametrize("change", CHANGES)
def test_reads_all_attributes_of_99_percent(change: str) -> None:
    rng = np.random.default_rng(7)
    scenes = [all_scenes()[i] for i in rng.permutation(960)[:300]]
    readings = [read(CHANGES[change](Image.fromarray(draw(scene, rng)))) for scene in scenes]
    right = [reading == scene._asdict() for reading, scene in zip(readings, scenes, strict=True)]
    assert np.mean(right) >= 0.99


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("shape", OBJECTS)
def test_reads_new_objects_too(shape: str, change: str) -> None:
    rng = np.random.default_rng(8)
    scenes = [all_scenes()[i]._replace(shape=shape) for i in rng.permutation(960)[:40]]
    assert all(
        read(CHANGES[change](Image.fromarray(draw(scene, rng)))) == scene._asdict() for scene in scenes
    )


@pytest.mark.parametrize("name", BACKGROUNDS)
def test_empty_picture_shows_only_its_background(name: str) -> None:
    reading = read(background(name).astype(np.uint8))
    assert reading == {"colour": None, "shape": None, "size": None, "place": None, "background": name}


def test_noise_shows_no_shape() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    assert read(noise)["shape"] is None


def test_shape_far_from_every_place_has_no_place() -> None:
    picture = draw(Scene("red", "circle", "small", "top left", "white"), np.random.default_rng(0))
    assert read(np.roll(picture, 11, axis=0))["place"] is None


def test_takes_pil_images_and_arrays_alike() -> None:
    picture = draw(all_scenes()[5], np.random.default_rng(1))
    assert read(picture) == read(Image.fromarray(picture))
