"""Stage A in tiles: large pictures in the memory of small ones, with the numbers that the whole would give.

A pixel that Stage A decodes depends on latents of its neighbourhood alone: there is no attention, and its
norms are over channels. Tiles that overlap by that neighbourhood, and of which only the middle is kept,
need no blending.
"""

from collections.abc import Callable
from itertools import product
from typing import NamedTuple

from torch import Tensor, nn

from modules.stage_a import StageA, StageAResBlock

LEAST_TILE_PX = 256  # of a smaller tile more than half would be overlap
TILE_PX = 1024  # unless told otherwise: a fifth of it is overlap


class Window(NamedTuple):
    """What of a side is looked at to compute the part of it that is kept, in latents."""

    start: int
    stop: int
    keep_start: int
    keep_stop: int


def decode_tiled(network: StageA, latents: Tensor, tile_px: int) -> Tensor:
    """`network.decode(latents)`, but for rounding, in the memory of one picture with sides of `tile_px`.

    latents: [B, c_latent, h, w]. tile_px: of a tile with its overlap. Returns [B, 3, h * factor, w * factor].
    """
    factor = network.factor
    return _tiled(network.decode, latents, decoder_reach(network), tile_px // factor, 1, factor)


def encode_tiled(network: StageA, images: Tensor, tile_px: int) -> Tensor:
    """`network.encode_unquantized(images)`, but for rounding, in memory as above.

    images: [B, 3, H, W] whose sides `factor` divides. Returns [B, c_latent, H / factor, W / factor]. The
    network has to be in evaluation mode: in training its batch norm looks at the whole batch.
    """
    factor = network.factor
    if any(side % factor for side in images.shape[-2:]):
        return network.encode_unquantized(images)  # which says what is wrong
    most = tile_px // factor
    return _tiled(network.encode_unquantized, images, encoder_reach(network), most, factor, 1)


def decoder_reach(network: StageA) -> int:
    """How many latents around its own a decoded pixel depends on."""
    reach = 0
    for layer in reversed(network.up_blocks):
        if isinstance(layer, nn.ConvTranspose2d):  # twice as fine behind it, 4 pixels wide
            reach = 1 + reach // 2
        reach += isinstance(layer, StageAResBlock)  # 3 pixels wide
    return reach


def encoder_reach(network: StageA) -> int:
    """How many latents around it, counted in whole ones, an encoded latent depends on the pixels of."""
    reach = 0
    for layer in reversed(network.down_blocks):
        if isinstance(layer, nn.Conv2d):  # twice as fine before it, 4 pixels wide
            reach = 2 * reach + 1
        reach += isinstance(layer, StageAResBlock)
    return -(-2 * reach // network.factor)


def windows(length: int, most: int, reach: int) -> list[Window]:
    """Windows of one size, at most `most`, that cover a side and see `reach` beyond what each keeps.

    At the ends of the side, where there is nothing beyond, windows end with it. All are of one size, so that
    what is compiled or chosen for a size serves for all. ValueError when `most` leaves nothing to keep.
    """
    if length <= most:
        return [Window(0, length, 0, length)]
    if most <= 2 * reach:
        raise ValueError(f"tile_px: tiles of {most} latents are all overlap; they need more than {2 * reach}")
    inner = length - 2 * reach  # the first and the last window keep their outer overlap
    step = -(-inner // -(-inner // (most - 2 * reach)))
    count = -(-inner // step)
    found: list[Window] = []
    for number in range(count):
        start = min(number * step, inner - step)
        keep_start = 0 if number == 0 else found[-1].keep_stop
        keep_stop = length if number == count - 1 else start + reach + step
        found.append(Window(start, start + step + 2 * reach, keep_start, keep_stop))
    return found


def _tiled(
    compute: Callable[[Tensor], Tensor], x: Tensor, reach: int, most: int, unit_in: int, unit_out: int
) -> Tensor:
    """compute(x) by windows of `most` latents a side, each unit_in pixels of x and unit_out of the result.

    As many pictures at once as have the pixels of one window.
    """
    height, width = (side // unit_in for side in x.shape[-2:])
    rows, columns = windows(height, most, reach), windows(width, most, reach)
    together = max(1, most**2 // (rows[0].stop * columns[0].stop))
    if len(x) <= together and len(rows) == len(columns) == 1:
        return compute(x)
    result: Tensor | None = None
    for first, row, column in product(range(0, len(x), together), rows, columns):
        pictures = slice(first, first + together)
        seen = (_pixels(each.start, each.stop, unit_in) for each in (row, column))
        part = compute(x[pictures, :, *seen])
        if result is None:
            result = part.new_empty(len(x), part.shape[1], height * unit_out, width * unit_out)
        kept = (_pixels(w.keep_start - w.start, w.keep_stop - w.start, unit_out) for w in (row, column))
        place = (_pixels(w.keep_start, w.keep_stop, unit_out) for w in (row, column))
        result[pictures, :, *place] = part[:, :, *kept]
    assert result is not None  # there is a first window
    return result


def _pixels(start: int, stop: int, unit: int) -> slice:
    return slice(start * unit, stop * unit)
