"""LoRA: layers of low rank, and tokens, learn beside a frozen Stage B or Stage C."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from dataset_tools.batches import Batch
from dataset_tools.latents import Latents, alike
from dataset_tools.stream import Stream
from modules.adapters.lora import LoRA
from modules.adapters.tokens import TrainedTokens
from modules.processes import place
from modules.schema import ConfigError, bounded, from_plain
from train.config import Config
from train.feed import placed
from train.parallel.ranks import gather
from train.recipe import Metrics
from train.recipes.wrapper import Wrapper
from train.rng import StepRng


@dataclass
class Regularisation:
    """Pictures of what the base can draw already and is not to forget (prior preservation, Ruiz et al. 2023).

    shards: as data.shards; read as `data` says otherwise. weight: of their loss beside that of the others.
    """

    shards: str | list[str]
    weight: float = bounded(1.0, 0.0)


@dataclass
class LoRASettings:
    """base: the network's own recipe. layers: rank by name pattern, the last that matches counts, 0 is not.

    alpha: the change is scaled by alpha / rank (null: by 1). dora: magnitudes of whole "output" rows or
    "input" columns learn too. tokens: text -> pattern of the words whose mean a new one begins with; null for
    a word that is known.
    """

    name: str
    base: dict[str, Any] = field(default_factory=dict)
    layers: dict[str, int] = field(default_factory=lambda: {"*.attn.*": 4})
    alpha: float | None = bounded(None, 0.0)
    dropout: float = bounded(0.0, 0.0, 1.0)
    dora: bool | Literal["output", "input"] = False
    tokens: dict[str, str | None] = field(default_factory=dict)
    regularisation: Regularisation | None = None


class LoRARecipe(Wrapper):
    """One player: the layers inside the frozen network, with the tokens that the text encoder is given."""

    def __init__(self, config: Config) -> None:
        self.settings = settings = from_plain(LoRASettings, config.recipe, "recipe")
        super().__init__(config)
        self.config = config
        if settings.tokens and self.base.encoders.settings["text_encoder"].offload:
            raise ConfigError(
                "model.text_encoder.offload: found true, but gradients pass through the text encoder to"
                " recipe.tokens; leave it out"
            )
        self.base.encoders.passes_gradients = bool(settings.tokens)
        self.regular: Stream | None = None
        self.latents: Latents | None = None

    def use_latents(self, made: Latents) -> tuple[str, ...]:
        parts = super().use_latents(made)
        self.latents = made.only(parts)
        return parts

    def build(self, device: torch.device) -> None:
        super().build(device)
        settings, network = self.settings, self.base.network
        self.lora = LoRA.create(
            network, settings.layers, alpha=settings.alpha, dropout=settings.dropout, dora=settings.dora
        )
        self.lora.attach(network)
        self.player = nn.ModuleDict({"network": network})
        if settings.tokens:
            encoder = self.base.encoders.encoders["text_encoder"]
            tokens = TrainedTokens.create(encoder, settings.tokens)
            tokens.attach(encoder)
            self.lora.bundle_emb = self.player["tokens"] = tokens
        if settings.regularisation is not None:
            self._open(settings.regularisation, device)

    def prepared(self) -> list[nn.Module]:
        return list(self.player.values())

    def trainable(self) -> dict[str, nn.Module]:
        return {"model": self.player}

    def networks(self) -> dict[str, nn.Module]:
        return {"lora": self.lora}

    def facts(self, name: str) -> dict[str, Any]:
        return {**super().facts(name), "tokens": self.settings.tokens}

    def loss(self, player: str, batch: Batch, rng: StepRng) -> tuple[Tensor, Metrics]:
        loss, metrics = super().loss(player, batch, rng)
        if self.regular is None or self.settings.regularisation is None:
            return loss, metrics
        kept, _ = super().loss(player, as_many(next(self.regular_batches), batch), rng)
        loss = loss + self.settings.regularisation.weight * kept
        return loss, {**metrics, "regularisation_loss": kept.detach()}

    def state_dict(self) -> dict[str, Any]:
        position = [] if self.regular is None else gather(self.regular.state_dict())
        return {"base": super().state_dict(), "regularisation": position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state["base"])
        positions = state["regularisation"]
        if self.regular is not None and positions:
            self.regular.load_state_dict(positions[min(place().rank, len(positions) - 1)])

    def _open(self, settings: Regularisation, device: torch.device) -> None:
        """Begin the second stream; every micro-batch is followed by one of its batches."""
        data = replace(self.config.data, shards=settings.shards, sources=[], epochs=None)
        run, own = self.config.run, place()
        self.regular = stream = Stream(data, rank=own.rank, world_size=own.size, seed=run.seed)
        if not alike(stream.latents, self.latents):
            raise ConfigError(
                "recipe.regularisation.shards: expected what data.shards holds, pictures or latents"
                f" precomputed alike; found something else in {settings.shards}"
            )
        if stream.latents is not None and self.latents is not None:
            stream.latents = stream.latents.only(self.latents.parts)

        def batches() -> Iterator[Batch]:
            for batch in stream:  # opened at the first step, after a position has been taken back
                yield placed(batch, device, run.channels_last)

        self.regular_batches = batches()


def as_many(batch: Batch, other: Batch) -> Batch:
    """As many of the batch's rows as the other has, which may be short, counting as much as the other's."""
    count = len(other["captions"])
    rows = {name: value[:count] for name, value in batch.items() if isinstance(value, Tensor | list)}
    return cast(Batch, rows | ({"share": other["share"]} if "share" in other else {}))
