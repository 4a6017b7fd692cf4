"""How configs describe networks and encoders: what training and `dataset_tools precompute` both read."""

from dataclasses import dataclass, field
from typing import Any


@dataclass
class NetworkSettings:
    """One network. config: constructor keywords; with weights, those that differ from what the file says.

    weights: a file, a run's folder or a folder of runs. train: whether it learns, where a recipe leaves the
    choice. allow_random: let a network that does not learn do without weights (for tests).
    """

    config: dict[str, Any] = field(default_factory=dict)
    weights: str | None = None
    train: bool | None = None
    allow_random: bool = False


@dataclass
class ImageEncoderSettings:
    """A CLIP encoder. source: hub name or local folder; or config (with seed): of a small random one."""

    source: str | None = None
    config: dict[str, Any] | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if (self.source is None) == (self.config is None):
            raise ValueError(
                "set either source (hub name or local folder) or config (a small random encoder)"
            )


@dataclass
class TextEncoderSettings(ImageEncoderSettings):
    """words: each one token to a random encoder's tokenizer; max_length: most tokens of a caption."""

    words: list[str] = field(default_factory=list)
    max_length: int = 77
