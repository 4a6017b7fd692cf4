import pytest
import torch

import modules
from modules.conditions import (
    TextFeatures,
    compress,
    compressor_grid,
    latent_size,
    stage_b_inputs,
    stage_c_inputs,
)


@pytest.mark.parametrize(
    ("size_px", "compression", "latent"),
    [
        (1024, 42.67, 24),
        (1024, 1024 / 24, 24),
        (1024, 42.6666, 24),
        (1025, 1024 / 24, 25),
        (1, 42.67, 1),
        (64, 4, 16),
    ],
)
def test_latent_sizes_are_rounded_up(size_px: int, compression: float, latent: int) -> None:
    assert latent_size(size_px, compression) == latent


@pytest.mark.parametrize(
    ("size_px", "scale", "grid"),
    [
        ((1024, 1024), 0.75, (24, 24)),
        ((333, 777), 0.75, (7, 18)),
        ((100, 70), 1.0, (3, 2)),
        ((40, 32), 0.1, (1, 1)),
        ((96, 96), 1 / 3, (1, 1)),
    ],
)
def test_the_compressor_sees_whole_latents_rounded_down(
    size_px: tuple[int, int], scale: float, grid: tuple[int, int]
) -> None:
    assert compressor_grid(size_px, scale, 32) == grid


def test_pictures_of_any_size_are_compressed_to_the_grid() -> None:
    stages = [["fused", 1, 3, 2, 8, 8, 1], ["fused", 1, 3, 2, 8, 8, 1]]
    compressor = modules.SemanticCompressor(5, {"stages": stages, "c_last": 8}).eval()
    images = torch.rand(2, 3, 8 * 3, 8 * 2)
    latents = compress(compressor, images, (3, 2))
    assert latents.shape == (2, 5, 3, 2)
    assert latents.equal(compressor(modules.normalise_images(images)))
    assert compress(compressor, torch.rand(1, 3, 20, 31), (3, 2)).shape == (1, 5, 3, 2)


def test_inputs_of_the_stages() -> None:
    text = TextFeatures(torch.randn(2, 5, 8), torch.randn(2, 1, 6))
    inputs = stage_c_inputs(text, None, 7)
    assert inputs["clip_text"] is text.tokens
    assert inputs["clip_text_pooled"] is text.pooled
    assert inputs["clip_img"].equal(torch.zeros(2, 1, 7))
    image = torch.randn(2, 1, 7)
    assert stage_c_inputs(text, image, 7)["clip_img"] is image
    latents = torch.randn(2, 16, 3, 3)
    assert stage_b_inputs(text, latents) == {"effnet": latents, "clip": text.pooled}
