"""Compressor latents as pictures, for Stage C's sample sheets: by the best means that the config names."""

from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

import gdf
from modules.conditions import TextFeatures, latent_size, stage_b_inputs
from modules.pictures import false_colours
from modules.schema import ConfigError, from_plain
from modules.settings import NetworkSettings
from modules.weights import find_weights, read_header
from train.losses.objective import draw
from train.networks import frozen_network
from train.rng import StepRng


class LatentViewer:
    """The previewer's pictures; without one those of Stage B and A; without these, false colours.

    is_used: whether there are sheets to draw; if not, no network is loaded.
    """

    def __init__(
        self,
        previewer: NetworkSettings | None,
        stage_b: NetworkSettings | None,
        stage_a: NetworkSettings | None,
        dtype: torch.dtype,
        is_used: bool,
    ) -> None:
        if (stage_a is None) != (stage_b is None):
            raise ConfigError(
                "model: sample sheets are decoded by stage_a and stage_b together: name both or none"
            )
        self.settings = {"previewer": previewer} if previewer else {"stage_a": stage_a, "stage_b": stage_b}
        self.dtype, self.is_used = dtype, is_used

    def build(self, device: torch.device) -> None:
        self.networks: dict[str, Any] = {
            name: frozen_network(name, settings, device, self.dtype)
            for name, settings in self.settings.items()
            if settings is not None and self.is_used
        }
        facts = _facts(self.settings.get("stage_b"))
        self.diffusion = gdf.build(facts["gdf"])
        self.decoding = from_plain(gdf.SamplingSettings, facts["sampling"], "model.stage_b.weights: sampling")

    @torch.no_grad()
    def __call__(
        self, latents: Tensor, text: TextFeatures, empty: TextFeatures, compression: float, rng: StepRng
    ) -> Tensor:
        """latents: [B, c, h, w]; text, empty: of the captions and of none; compression: pixels per latent.

        Returns pictures [B, 3, H, W] in [0, 1] of whatever size comes out.
        """
        if "previewer" in self.networks:
            return self.networks["previewer"](latents).float().clamp(0, 1)
        if "stage_b" not in self.networks:
            return false_colours(latents)
        stage_a, stage_b = self.networks["stage_a"], self.networks["stage_b"]
        sides = [latent_size(round(side * compression), stage_a.factor) for side in latents.shape[2:]]
        conditions, nothing = stage_b_inputs(text, latents), stage_b_inputs(empty, torch.zeros_like(latents))
        shape = (len(latents), stage_b.config["c_in"], *sides)
        decoded = draw(stage_b, self.diffusion, conditions, nothing, shape, rng, self.decoding)
        return stage_a.decode(decoded).float().clamp(0, 1)


def _facts(stage_b: NetworkSettings | None) -> dict[str, Any]:
    """Diffusion and sampling as the weights' header says; as released where it does not."""
    released = {"gdf": gdf.RELEASED_SPEC, "sampling": asdict(gdf.RELEASED_SAMPLING["stage_b"])}
    if stage_b is None or stage_b.weights is None:
        return released
    return released | read_header(find_weights(stage_b.weights, "stage_b"), "stage_b")
