"""Pictures to latents and back, as the task `reconstruct` does it."""

import numpy as np
import torch
from PIL import Image

from inference import Cascade
from inference.latents import decode, encode, pixels
from modules.pictures import to_image


def test_decoded_latents_are_the_reconstruction(cascade: Cascade, photo: str) -> None:
    [expected] = cascade.generate("a circle", seeds=3, task="reconstruct", image=photo)
    images = pixels([Image.open(photo)])
    latents = encode(cascade, images)
    made = decode(cascade, latents, images.shape[2:], seeds=3, prompt="a circle")
    assert np.array_equal(np.asarray(to_image(made[0])), np.asarray(expected.image))


def test_one_seed_for_all_and_one_for_each(cascade: Cascade) -> None:
    latents = torch.randn(1, 16, 3, 3).repeat(2, 1, 1, 1)
    alike, different = (decode(cascade, latents, (32, 32), seeds=seeds) for seeds in (5, [5, 6]))
    torch.testing.assert_close(alike[0], alike[1])
    assert not torch.allclose(different[0], different[1], atol=0.05)
    torch.testing.assert_close(different[0], alike[0])


def test_pictures_are_cut_to_the_size_of_the_first() -> None:
    first, second = Image.new("L", (32, 24), 255), Image.new("RGB", (64, 64))
    both = pixels([first, second])
    assert both.shape == (2, 3, 24, 32)
    assert both[0].min() == 1 and both[1].max() == 0
