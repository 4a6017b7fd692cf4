"""One training step around any network, ours or a peer's: the same loss, clipping and optimizer for both."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

import gdf

Call = Callable[[Tensor, Tensor, Mapping[str, Tensor]], Tensor]
LEARNING_RATE, CLIP_NORM = 1e-5, 1.0


def adamw(network: nn.Module) -> torch.optim.Optimizer:
    """For what learns in a network; its variants share it, as they share the parameters."""
    learning = [parameter for parameter in network.parameters() if parameter.requires_grad]
    return torch.optim.AdamW(learning, lr=LEARNING_RATE, fused=True)


def training_step(
    call: Call,
    optimizer: torch.optim.Optimizer,
    inputs: Mapping[str, Tensor],
    shape: Sequence[int],
    precision: torch.dtype,
) -> Callable[[], None]:
    """A step on one batch: noise it, predict, go back, clip, update.

    call: the network, of noised latents of this shape, noise condition [B] and inputs. precision: of
    products; bfloat16 by autocast, as training does it.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    place = parameters[0].device
    diffusion = gdf.build(gdf.RELEASED_SPEC)
    rng = torch.Generator(place).manual_seed(0)
    latents = torch.randn(*shape, generator=rng, device=place)

    def step() -> None:
        noised = diffusion.diffuse(latents, generators=rng)
        with torch.autocast(place.type, torch.bfloat16, enabled=precision == torch.bfloat16):
            prediction = call(noised.noised, noised.noise_cond, inputs)
        each = (prediction.float() - noised.target).square().mean(dim=(1, 2, 3))
        (each * noised.loss_weight).mean().backward()
        torch.nn.utils.clip_grad_norm_(parameters, CLIP_NORM)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step
