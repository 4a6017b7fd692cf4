"""What a stage's network is told beside latents and noise level, step by step."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from inference.adapters import ControlSettings
from inference.image_prompts import ImageTokens
from modules.adapters.controlnet import Controls, combine


@dataclass(frozen=True)
class Inputs:
    """Keywords of the network's forward, with the prompt and, for guidance, without it."""

    conditional: Mapping[str, Any]
    unconditional: Mapping[str, Any]

    def __call__(self, step: int) -> "Inputs":
        """The inputs of a step: always the same."""
        return self

    def with_image_tokens(self, tokens: ImageTokens) -> "Inputs":
        """The same with an image prompt; guidance leads away from no picture."""
        return Inputs(
            {**self.conditional, "image_tokens": tokens.pictures},
            {**self.unconditional, "image_tokens": tokens.nothing},
        )

    def with_controls(self, controls: Controls) -> "Inputs":
        """The same with control maps, in both halves: guidance is by the prompt alone."""
        return Inputs({**self.conditional, "cnet": controls}, {**self.unconditional, "cnet": controls})


class ControlledInputs:
    """Inputs with the ControlNets that count in each step.

    maps: of each ControlNet, whose settings say how strongly it counts, and in which of so many steps.
    """

    def __init__(
        self, inputs: Inputs, maps: Sequence[Controls], settings: Sequence[ControlSettings], steps: int
    ) -> None:
        self.inputs, self.maps, self.settings, self.steps = inputs, maps, settings, steps
        self._made: dict[tuple[float, ...], Inputs] = {}

    def __call__(self, step: int) -> Inputs:
        """The inputs of a step; the same object for as long as nothing changes."""
        scales = tuple(each.scale if each.active(step, self.steps) else 0.0 for each in self.settings)
        if scales not in self._made:
            self._made[scales] = self.inputs.with_controls(combine(self.maps, scales))
        return self._made[scales]
