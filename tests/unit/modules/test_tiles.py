"""Stage A in tiles: the same numbers, whatever the size, the batch and the tile."""

import pytest
import torch
from torch import Tensor

from modules import StageA
from modules.tiles import decode_tiled, decoder_reach, encode_tiled, encoder_reach, windows


def stage_a(levels: int = 2, bottleneck_blocks: int = 3) -> StageA:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = StageA(levels=levels, bottleneck_blocks=bottleneck_blocks, c_hidden=16, codebook_size=32)
        for parameter in network.parameters():
            parameter.data += 0.2 * torch.randn_like(parameter)
    return network.double().eval().requires_grad_(False)


@pytest.mark.parametrize(("levels", "blocks"), [(1, 2), (2, 3), (3, 1), (2, 12)])
def test_the_reach_is_that_of_the_gradient(levels: int, blocks: int) -> None:
    network = stage_a(levels, blocks)
    reach, side = decoder_reach(network), 40
    latents = torch.randn(1, 4, side, side, dtype=torch.float64, requires_grad=True)
    middle = network.factor * (side // 2)
    block = slice(middle, middle + network.factor)  # the pixels of one latent
    network.decode(latents)[..., block, block].sum().backward()
    assert latents.grad is not None
    touched = latents.grad[0].abs().sum(dim=(0, 1)).nonzero().flatten()  # columns
    assert (touched[0], touched[-1]) == (side // 2 - reach, side // 2 + reach)


def test_the_encoder_reaches_as_far_as_its_gradient() -> None:
    for levels in (1, 2, 3):
        network = stage_a(levels)
        factor, reach = network.factor, encoder_reach(network)
        images = torch.rand(1, 3, 16 * factor, 16 * factor, dtype=torch.float64, requires_grad=True)
        network.encode_unquantized(images)[..., 8, 8].sum().backward()
        assert images.grad is not None
        touched = images.grad[0].abs().sum(dim=(0, 1)).nonzero().flatten() // factor
        assert (touched[0], touched[-1]) == (8 - reach, 8 + reach)


@pytest.mark.parametrize("shape", [(1, 70, 90), (2, 33, 100), (3, 20, 30), (5, 16, 16)])
def test_tiles_give_what_the_whole_gives(shape: tuple[int, int, int]) -> None:
    network = stage_a()
    rows, height, width = shape
    latents = torch.randn(rows, 4, height, width, dtype=torch.float64)
    seen: list[Tensor] = []
    network.up_blocks.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    tiled = decode_tiled(network, latents, tile_px=128)
    assert len(seen) > 1 and all(x.shape[0] * x.shape[2] * x.shape[3] <= 32**2 for x in seen)
    torch.testing.assert_close(tiled, network.decode(latents), rtol=0, atol=1e-12)
    images = torch.rand(rows, 3, 4 * height, 4 * width, dtype=torch.float64)
    whole = network.encode_unquantized(images)
    torch.testing.assert_close(encode_tiled(network, images, 128), whole, rtol=0, atol=1e-12)


def test_what_fits_is_decoded_at_once() -> None:
    network = stage_a()
    latents = torch.randn(2, 4, 32, 16, dtype=torch.float64)
    assert torch.equal(decode_tiled(network, latents, tile_px=128), network.decode(latents))


def test_windows_are_alike_and_keep_each_place_once() -> None:
    for length in range(1, 200):
        for most, reach in ((16, 3), (30, 13), (27, 13)):
            found = windows(length, most, reach)
            assert {w.stop - w.start for w in found} == {found[0].stop} and found[0].stop <= most
            kept = [place for w in found for place in range(w.keep_start, w.keep_stop)]
            assert kept == list(range(length))
            assert all(w.start == 0 or w.keep_start - w.start >= reach for w in found)
            assert all(w.stop == length or w.stop - w.keep_stop >= reach for w in found)


def test_a_tile_that_is_all_overlap_is_refused() -> None:
    with pytest.raises(
        ValueError, match="tile_px: tiles of 10 latents are all overlap; they need more than 12"
    ):
        windows(100, 10, 6)
    with pytest.raises(ValueError, match="multiples of 4, found 9 x 8"):
        encode_tiled(stage_a(), torch.rand(1, 3, 9, 8, dtype=torch.float64), 128)
