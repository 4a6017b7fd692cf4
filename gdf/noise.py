"""Random numbers, all of them from generators that the caller passes, and the kinds of noise made of them."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

# One generator draws a whole batch. A sequence holds one generator per picture, and row i of every draw comes
# from generator i alone. A function is asked for a tensor of the given shape: a replay of recorded noise.
Randomness = torch.Generator | Sequence[torch.Generator] | Callable[[tuple[int, ...]], Tensor]


def randn(
    shape: Sequence[int],
    generators: Randomness | None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Normal numbers [*shape] on `device`; batch first.

    Drawn in float32 on the generators' own device and then converted, so that the same generator gives the
    same noise whatever `device` and `dtype` are. Raises ValueError without generators, or when a sequence
    of them has not one per row.
    """
    return _draw(torch.randn, tuple(shape), generators, device, dtype)


def rand(
    shape: Sequence[int],
    generators: Randomness | None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Uniform numbers in [0, 1), otherwise as `randn`."""
    return _draw(torch.rand, tuple(shape), generators, device, dtype)


def _draw(
    function: Callable[..., Tensor],
    shape: tuple[int, ...],
    generators: Randomness | None,
    device: torch.device | str,
    dtype: torch.dtype,
) -> Tensor:
    def from_generator(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        return function(shape, generator=generator, device=generator.device, dtype=torch.float32)

    if generators is None:
        raise ValueError("random numbers are needed here: pass generators= (one, or one per picture)")
    if isinstance(generators, torch.Generator):
        drawn = from_generator(shape, generators)
    elif callable(generators):
        drawn = generators(shape)
    elif len(generators) != shape[0]:
        raise ValueError(
            f"generators: {len(generators)} given for a batch of {shape[0]}, one per picture is needed"
        )
    else:
        drawn = torch.stack([from_generator(shape[1:], generator) for generator in generators])
    return drawn.to(device=device, dtype=dtype)


def offset_noise(
    shape: Sequence[int],
    generators: Randomness | None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Normal numbers that are constant over each channel of each picture: [B, C, 1, ...] for shape [B, C,
    ...].

    Added to the noise they teach a model to move a picture's mean brightness (Guttenberg 2023,
    "Diffusion with Offset Noise").
    """
    return randn([*shape[:2], *[1] * (len(shape) - 2)], generators, device, dtype)


def pyramid_noise(
    shape: Sequence[int],
    generators: Randomness | None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    *,
    size_range: Sequence[int] | None = None,
    levels: int = 10,
    decay: float = 0.75,
    square_levels: bool = False,
) -> Tensor:
    """Noise with correlation at several sizes, each value N(0, 1): Σ_i decay^i up(n_i) / sqrt(Σ_i decay^2i).

    shape: [B, C, H, W]. Level i < levels is normal noise of size [H / 2^i, W / 2^i], enlarged without
    smoothing; the last is the one with a side of 1. size_range: (least, most) side; a level neither of
    whose sides lies in it is left out, level 0 never is. square_levels: levels of size [H / 2^i, H / 2^i],
    stretched to the picture, as the published code draws them. (Whitaker 2023, "Multi-Resolution Noise for
    Diffusion Model Training".)
    """
    height, width = shape[-2:]
    noise, power = randn(shape, generators, device, dtype), 1.0
    for level in range(1, levels):
        size = (height >> level, (height if square_levels else width) >> level)
        if min(size) < 1:
            break
        if size_range is None or any(size_range[0] <= side <= size_range[1] for side in size):
            coarse = randn([*shape[:-2], *size], generators, device, dtype)
            noise = noise + decay**level * torch.nn.functional.interpolate(coarse, size=(height, width))
            power += decay ** (2 * level)
        if min(size) == 1:
            break
    return noise / power**0.5
