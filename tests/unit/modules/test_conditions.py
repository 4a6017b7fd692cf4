import pytest
import torch

from modules.conditions import TextFeatures, latent_size, stage_b_inputs, stage_c_inputs


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
