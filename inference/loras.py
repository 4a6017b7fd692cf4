"""LoRAs: read from files of any layout, fitted to networks, stacked on them for as long as a `with` lasts."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from inference.adapters import LoRASettings
from inference.naming import naming
from inference.networks import Networks
from inference.settings import Request
from modules.adapters.lora import LoRA
from modules.adapters.lora_state import LoRAState
from modules.adapters.tokens import TrainedTokens
from modules.encoders import TextEncoder
from modules.weights.lora_files import find_lora, read_lora

Change = LoRA | TrainedTokens
Lend = Callable[[TextEncoder], AbstractContextManager[TextEncoder]]


@dataclass
class StoredLoRA:
    """What a file changes in stages and text encoders, made when first needed and kept.

    new_tokens: as in LoRASettings. The text encoder of the stage that it is not for is changed too where it
    is of the same kind: the released models have one encoder for both.
    """

    state: LoRAState
    new_tokens: Mapping[str, str | None]
    _changes: dict[str, list[Change]] = field(default_factory=dict)

    @property
    def stage(self) -> str:
        """The stage that it is for."""
        return self.state.facts["for"]

    def for_stage(self, stage: str, network: nn.Module) -> list[Change]:
        """What is to be attached to a stage; ValueError when it does not fit."""
        if stage not in self._changes:
            layers = self.state.parts["unet"] or self.state.numbered
            is_changed = stage == self.stage and layers
            self._changes[stage] = [LoRA.from_state(self.state, network)] if is_changed else []
        return self._changes[stage]

    def for_encoder(self, stage: str, encoder: TextEncoder, lend: Lend) -> list[Change]:
        """What is to be attached to a stage's text encoder; ValueError as above for its own stage.

        lend: brings the encoder's weights, which an official file's tokens are added to.
        """
        place = f"text_encoder of {stage}"
        if place not in self._changes:
            try:
                with lend(encoder) if self.state.rows else nullcontext():
                    self._changes[place] = self._text_changes(encoder)
            except ValueError:
                if stage == self.stage:
                    raise
                self._changes[place] = []
        return self._changes[place]

    def _text_changes(self, encoder: TextEncoder) -> list[Change]:
        changes: list[Change] = []
        if self.state.parts["text_encoder"]:
            changes.append(LoRA.from_state(self.state, encoder.model, "text_encoder"))
        if self.state.tokens:
            changes.append(TrainedTokens.from_vectors(self.state.tokens))
        if self.state.rows:
            rows = {row: vector.to(encoder.model.device) for row, vector in self.state.rows.items()}
            changes.append(TrainedTokens.from_rows(encoder, rows, self.new_tokens))
        for tokens in changes:
            if isinstance(tokens, TrainedTokens):
                tokens.attach(encoder)  # which raises when they do not fit
                tokens.detach()
        return changes


class LoRAs:
    """The LoRAs that requests name."""

    def __init__(self, networks: Networks) -> None:
        self.networks = networks
        self._stored: dict[tuple[Any, ...], StoredLoRA] = {}

    def stored(self, settings: LoRASettings) -> StoredLoRA:
        """A LoRA's file, read when it is first asked for. Raises FileNotFoundError, ValueError."""
        key = settings.weights, *settings.tokens.items()
        if key not in self._stored:
            state = read_lora(settings.weights, self.networks.ema)
            self._stored[key] = StoredLoRA(state, settings.tokens)
        return self._stored[key]

    def check(self, request: Request, stages: Sequence[str]) -> None:
        """Fit a request's LoRAs to the stages that draw. ValueError, FileNotFoundError name the setting."""
        for i, settings in enumerate(request.loras):
            with naming(f"loras[{i}]"):
                stored = self.stored(settings)
                if settings.weights in [other.weights for other in request.loras[:i]]:
                    raise ValueError(f"{settings.weights} is in the list twice; add the weights up")
                if stored.stage not in stages:
                    raise ValueError(f"{settings.weights} is for {stored.stage}, which does not draw here")
                with naming(settings.weights):
                    for stage in stages:
                        stored.for_stage(stage, self.networks.peek(stage))
                        encoder = self.networks.peek_encoder("text_encoder", stage)
                        stored.for_encoder(stage, encoder, self.networks.lend)

    def fingerprints(self, request: Request) -> dict[str, str]:
        """Short checksums of the files, by setting."""
        files = [find_lora(settings.weights, self.networks.ema) for settings in request.loras]
        return {f"loras[{i}]": self.networks.fingerprint(file) for i, file in enumerate(files)}

    @contextmanager
    def on_stage(self, stage: str, network: nn.Module, request: Request) -> Iterator[None]:
        """A stage with the request's LoRAs on it."""
        with self._on(network, request, lambda lora: lora.for_stage(stage, network)):
            yield

    @contextmanager
    def on_encoder(self, stage: str, encoder: TextEncoder, request: Request) -> Iterator[None]:
        """A stage's text encoder with the request's LoRAs and their trained tokens on it."""
        with self._on(encoder, request, lambda lora: lora.for_encoder(stage, encoder, self.networks.lend)):
            yield

    @contextmanager
    def _on(
        self, network: nn.Module, request: Request, changes_of: Callable[[StoredLoRA], list[Change]]
    ) -> Iterator[None]:
        with ExitStack() as stack:
            for settings in request.loras:
                if settings.weight == 0:
                    continue
                for change in changes_of(self.stored(settings)):
                    stack.enter_context(self.networks.lend(change))
                    _attach(change, network, settings.weight)
                    stack.callback(change.detach)
            yield


def _attach(change: Change, network: nn.Module, weight: float) -> None:
    if isinstance(change, TrainedTokens):
        assert isinstance(network, TextEncoder)
        change.attach(network)  # as it is: half a token means nothing
    else:
        change.attach(network.model if isinstance(network, TextEncoder) else network, weight)
