"""Training on precomputed latents, on paper: batches without pictures, a recipe without what made them."""

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor

import modules
from dataset_tools.latent_facts import PARTS, Facts, Part
from dataset_tools.latents import Latents, find
from dataset_tools.sources import expand
from modules.conditions import TextFeatures, compressor_grid
from modules.schema import ConfigError
from train.config import Config
from train.latents import LearnsFromLatents

META = torch.device("meta")


class LatentsOnPaper(Latents):
    """Latents of which only the sizes are known."""

    @property
    def empty(self) -> TextFeatures:  # type: ignore[override]
        """States [L, D] and [1, P] of the empty caption."""
        part = self.facts.networks["text_encoder"]
        return TextFeatures(*(torch.empty(shape, device=META) for shape in (part.shape, part.pooled)))

    def batch(self, size: int, side_px: int) -> dict[str, Tensor]:
        """What the data would bring of so many square pictures, in the place of pictures."""
        found = {}
        for name, part in self.facts.networks.items():
            shape = part.shape
            if name in ("semantic_compressor", "stage_a"):
                shape = [*shape, *compressor_grid((side_px, side_px), part.scale, part.factor)]
            found[NAMES[name]] = torch.empty(size, *shape, dtype=self.dtype, device=META)
            if part.pooled:
                found["text_pooled"] = torch.empty(size, *part.pooled, dtype=self.dtype, device=META)
        return found


NAMES = {
    "semantic_compressor": "latents",
    "stage_a": "stage_a_latents",
    "image_encoder": "image_embeds",
    "text_encoder": "text_tokens",
}


def parts_there(plain: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Of which networks the run's shards hold what they made; None for pictures, or where there are none."""
    data = plain.get("data") or {}
    shards = (
        [data["shards"]] if data.get("shards") else [each["shards"] for each in data.get("sources") or []]
    )
    try:
        found = find([name for each in shards for name in expand(each)])
    except (ValueError, OSError):
        return None  # training will say what is wrong with them
    return None if found is None else found.parts


def learn_from_latents(recipe: Any, base: Any, config: Config, parts: Collection[str]) -> LatentsOnPaper:
    """Tell a recipe, before it is built, that its batches hold latents. base: as of `Paper`.

    Raises ConfigError for one that learns from pixels.
    """
    is_able = isinstance(recipe, LearnsFromLatents) and not config.data.control
    if not is_able or "semantic_compressor" in getattr(base, "learning", ()):
        raise ConfigError(f"recipe: {config.recipe['name']} learns from pixels here, not from latents")
    settings = base.encoders.settings
    used = [
        name for name in ("semantic_compressor", "stage_a") if name in parts and hasattr(base.model, name)
    ]
    if base.network_name == "stage_c":
        used = [name for name in used if name != "stage_a"]
    encoded = [name for name in settings if name in parts]
    if base.encoders.passes_gradients:
        encoded.remove("text_encoder")
    networks = {name: part(name, base, config) for name in (*used, *encoded)}
    order = tuple(name for name in PARTS if name in networks)
    made = LatentsOnPaper("", Facts(networks, {}, [], dtype="bf16"), order)
    base.latents, base.encoders.latents = made, made.only(encoded)
    return made


def part(name: str, base: Any, config: Config) -> Part:
    """What one network makes."""
    own = config.model.get(name) or {}
    sizes = own.get("config") or {}
    if name == "text_encoder":
        length, width = base.encoders.settings[name].max_length, sizes["hidden_size"]
        return Part("", [length, width], [1, sizes.get("projection_dim", width)])
    if name == "image_encoder":
        return Part("", [1, sizes["projection_dim"]])
    with META:
        network: Any = modules.build(name, sizes)
    if name == "stage_a":
        return Part("", [network.config["c_latent"]], factor=network.factor)
    return Part("", [network.config["c_latent"]], factor=network.factor, scale=base.settings.compressor_scale)
