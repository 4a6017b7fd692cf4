"""IP-Adapter: a frozen Stage C learns to take pictures as prompts, through attention of their own."""

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from dataset_tools.batches import Batch
from modules.adapters.ip_adapter import IPAdapter, attention_channels
from modules.network import Network
from modules.schema import ConfigError, bounded, from_plain
from modules.settings import NetworkSettings
from train.conditioning import keep_rows
from train.config import Config
from train.networks import check_networks, evaluating, learning_network
from train.recipes.diffusion import Extra
from train.recipes.wrapper import Wrapper
from train.rng import StepRng


@dataclass
class IPAdapterSettings:
    """base: Stage C's own recipe, which drops captions, so that the picture has to be enough."""

    name: str
    base: dict[str, Any] = field(default_factory=dict)
    image_dropout: float = bounded(0.05, 0.0, 1.0)  # of pictures that are not seen: features of zeros


@dataclass
class IPAdapterModel:
    """The adapter learns; the image encoder is one of the base's networks."""

    ip_adapter: NetworkSettings = field(default_factory=NetworkSettings)


class IPAdapterRecipe(Wrapper):
    """One player: the IP-Adapter. It learns to draw each training picture from the features of itself."""

    learning = ("ip_adapter",)

    def __init__(self, config: Config) -> None:
        super().__init__(config, own=self.learning)
        self.settings = from_plain(IPAdapterSettings, config.recipe, "recipe")
        own = {name: config.model[name] for name in self.learning if name in config.model}
        self.model = from_plain(IPAdapterModel, own, "model")
        if self.base.network_name != "stage_c":
            raise ConfigError(f"recipe.base.name: expected stage_c, found {self.base.network_name!r}")
        if "image_encoder" not in self.base.encoders.settings:
            raise ConfigError("model.image_encoder: missing; name the encoder of the image prompts")
        check_networks(self.model, self.learning)
        self.base.extra = self._extra

    def build(self, device: torch.device) -> None:
        super().build(device)
        self.ip_adapter: IPAdapter = make_ip_adapter(self.model.ip_adapter, self.base.network, device)
        self.ip_adapter.attach(self.base.network)
        self._check_width(device)

    def prepared(self) -> list[nn.Module]:
        # The projections to keys and values lie in Stage C's blocks.
        return [*super().prepared(), self.ip_adapter.image_proj]

    def trainable(self) -> dict[str, nn.Module]:
        return {"model": nn.ModuleDict({"stage_c": self.base.network, "ip_adapter": self.ip_adapter})}

    def networks(self) -> dict[str, nn.Module]:
        return {"ip_adapter": self.ip_adapter}

    @torch.no_grad()
    def sample(self, batch: Batch, rng: StepRng) -> dict[str, Tensor]:
        with evaluating(self.ip_adapter):
            return super().sample(batch, rng)

    def _extra(self, batch: Batch, rng: StepRng, learning: bool) -> Extra:
        """Image tokens of the pictures; of no picture (zeros) for the unconditional half of guidance."""
        features = self.base.encoders.features_of_batch(batch, self.ip_adapter.reads)
        if learning:
            seen = keep_rows(features, 1 - self.settings.image_dropout, rng)
            return Extra({"image_tokens": self.ip_adapter(seen)}, {})
        tokens, nothing = self.ip_adapter(features), self.ip_adapter(torch.zeros_like(features))
        return Extra({"image_tokens": tokens}, {"image_tokens": nothing})

    def _check_width(self, device: torch.device) -> None:
        """Raise ConfigError unless the adapter was made for features of the encoder's width."""
        reads, c_image = self.ip_adapter.reads, self.ip_adapter.config["c_image"]
        width = self.base.encoders.feature_width(reads, device)
        if width != c_image:
            raise ConfigError(
                f"model.ip_adapter.config.c_image: expected {width}, the width of the {reads} features"
                f" of the image encoder, found {c_image}"
            )


def make_ip_adapter(settings: NetworkSettings, stage_c: Network, device: torch.device) -> IPAdapter:
    """From its weights, or a fresh one that fits Stage C and reads image tokens as that reads text."""
    if settings.weights is not None:
        return learning_network("ip_adapter", settings, device)
    fitting = {"channels": attention_channels(stage_c), "c_tokens": stage_c.config["c_cond"]}
    settings = replace(settings, config={**settings.config, **fitting})
    adapter: IPAdapter = learning_network("ip_adapter", settings, device)
    adapter.read_as_text(stage_c)
    return adapter
