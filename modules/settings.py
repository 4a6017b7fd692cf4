"""How configs describe networks and encoders: what training and `dataset_tools precompute` both read."""

import hashlib
import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from modules.schema import ConfigError
from modules.weights import encoder_folder, find_weights, fingerprint
from modules.weights.files import read_index


@dataclass(kw_only=True)
class Held:
    """How a network that never learns is held in a training; what it computes is the same but for rounding.

    frozen_weights: number format; nf4 and int8 of linear layers, the rest as without. None: as run.precision.
    offload: it lies in the CPU's memory and is on the GPU only while it runs.
    """

    frozen_weights: Literal["fp32", "bf16", "nf4", "int8"] | None = None
    offload: bool = False

    @property
    def is_quantised(self) -> bool:
        """Whether its linear layers are in few bits."""
        return self.frozen_weights in ("nf4", "int8")


@dataclass
class NetworkSettings(Held):
    """One network. config: constructor keywords; with weights, those that differ from what the file says.

    weights: a file, a run's folder or a folder of runs. train: whether it learns, where a recipe leaves the
    choice. allow_random: let a network that does not learn do without weights (for tests). frozen_weights,
    offload: as `Held` says, of one that does not learn.
    """

    config: dict[str, Any] = field(default_factory=dict)
    weights: str | None = None
    train: bool | None = None
    allow_random: bool = False


@dataclass
class ImageEncoderSettings(Held):
    """A CLIP encoder. source: hub name or local folder; or config (with seed): of a small random one."""

    source: str | None = None
    config: dict[str, Any] | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if (self.source is None) == (self.config is None):
            raise ValueError(
                "set either source (hub name or local folder) or config (a small random encoder)"
            )

    def keywords(self) -> dict[str, Any]:
        """The constructor's, which say what it computes."""
        held = [entry.name for entry in fields(Held)]
        return {name: value for name, value in asdict(self).items() if name not in held}


@dataclass
class TextEncoderSettings(ImageEncoderSettings):
    """words: each one token to a random encoder's tokenizer; max_length: most tokens of a caption."""

    words: list[str] = field(default_factory=list)
    max_length: int = 77


def identity(name: str, settings: NetworkSettings | ImageEncoderSettings) -> str:
    """By what two runs know that they use the same network or encoder, without loading it.

    A checksum of the weights, of the settings of a random encoder, or the name at a hub. Raises ConfigError
    for a network without weights, FileNotFoundError when they are not there.
    """
    if isinstance(settings, NetworkSettings):
        if settings.weights is None:
            raise ConfigError(f"model.{name}.weights: missing; expected the network that made the latents")
        return _checksum(find_weights(settings.weights, name))
    if settings.source is None:
        return hashlib.sha256(json.dumps(settings.keywords(), sort_keys=True).encode()).hexdigest()[:16]
    folder = encoder_folder(settings.source, name)
    found = _checksum(find_weights(folder, name)) if folder else settings.source
    length = getattr(settings, "max_length", None)
    return found if length is None else f"{found}, {length} tokens"


def _checksum(file: Path) -> str:
    if file.suffix != ".json":
        return fingerprint(file)
    return "+".join(fingerprint(file.with_name(part)) for part in sorted(set(read_index(file).values())))
