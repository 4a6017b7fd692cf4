"""One stage's diffusion, step by step: where it starts, what is kept, what changes on the way."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

import gdf
from gdf.sampling import step_times
from inference.inputs import Inputs


class Start(NamedTuple):
    """Latents of pictures to begin from, [B, C, h, w], and what of them is kept.

    masks: [B, 1, h, w], 1 where they are drawn anew and 0 where they stay to the end; None: nothing stays.
    """

    latents: Tensor
    masks: Tensor | None = None


@dataclass(frozen=True)
class Path:
    """The noise of a start on its way down: the same noise all along, ever less of it.

    signal, noise_level: [steps + 1], the shares of latents and noise before each step and after the last.
    """

    start: Start
    noise: Tensor  # [B, C, h, w]
    signal: Tensor
    noise_level: Tensor

    @classmethod
    def of(cls, start: Start, noise: Tensor, diffusion: gdf.GDF, times: Tensor, shift: float) -> "Path":
        """The path through these times [steps + 1]."""
        signal, noise_level = diffusion.input_scaler(diffusion.schedule(times, shift))
        return cls(start, noise, signal, noise_level)

    def at(self, step: int) -> Tensor:
        """The start's latents with the noise of the point before a step, which is numbered from 0."""
        return self.signal[step] * self.start.latents + self.noise_level[step] * self.noise

    def kept_in(self, x: Tensor, known: Tensor) -> Tensor:
        """x with `known` where the start is kept."""
        return x if self.start.masks is None else torch.where(self.start.masks > 0, x, known)


class PreparedNetwork:
    """A network that computes what its conditions alone determine once, not in each step.

    Nothing else may change the network meanwhile: adapters are put on before, and stay.
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self._seen: dict[str, Any] | None = None
        self._shape: torch.Size | None = None
        self._prepared: Any = None

    def __call__(self, x: Tensor, r: Tensor, **inputs: Any) -> Tensor:
        """As the network's own; its conditions count as the same where they are the same objects."""
        if not self._knows(x, inputs):
            self._prepared = self.network.prepare(x, **inputs)  # type: ignore[operator]
            self._seen, self._shape = inputs, x.shape
        return self.network(x, r, **inputs, prepared=self._prepared)

    def _knows(self, x: Tensor, inputs: dict[str, Any]) -> bool:
        seen = self._seen
        if seen is None or seen.keys() != inputs.keys() or self._shape != x.shape:
            return False
        return all(seen[name] is value for name, value in inputs.items())


def sample(
    network: nn.Module,
    diffusion: gdf.GDF,
    settings: gdf.SamplingSettings,
    inputs_at: Callable[[int], Inputs],
    noise: Tensor,
    generators: Sequence[torch.Generator],
    start: Start | None = None,
    t_start: float = 1.0,
) -> Iterator[Tensor]:
    """Yield the predicted clean latents [B, C, h, w] after each step; the last are the result.

    inputs_at: the inputs of a step, numbered from 0; the same object for as long as nothing changes. noise:
    [B, C, h, w], what sampling begins with, and nothing else at t_start = 1. start: latents to begin from at
    a smaller t_start. Where its masks are 0 they are put back after every step, with as much noise as the
    rest has then (Lugmayr et al. 2022, "RePaint", eq. 8, with one noise for all steps).
    """
    path, x = None, noise
    if start is not None:
        times = step_times(t_start, 0.0, settings.steps, torch.float32)
        path = Path.of(start, noise, diffusion, times, settings.shift)
        x = path.at(0) if t_start < 1 else path.kept_in(noise, path.at(0))
    inputs = inputs_at(0)
    steps = diffusion.sample(
        PreparedNetwork(network),
        inputs.conditional,
        tuple(noise.shape),
        unconditional_inputs=inputs.unconditional,
        generators=generators,
        t_start=t_start,
        x_init=x,
        device=noise.device,
        **settings.keywords(),
    )
    sampled = next(steps)
    for step in range(1, settings.steps):
        yield sampled.x0
        changes: dict[str, Any] = {}
        if path is not None:
            changes["x"] = path.kept_in(sampled.x, path.at(step))
        if (now := inputs_at(step)) is not inputs:
            inputs = now
            changes |= {"model_inputs": now.conditional, "unconditional_inputs": now.unconditional}
        sampled = steps.send(changes)
    yield sampled.x0 if path is None else path.kept_in(sampled.x0, path.start.latents)
