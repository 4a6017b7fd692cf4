"""What a picture is made from, besides the weights: plain data that travels in the picture's own metadata."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from gdf import RELEASED_SPEC, SamplingSettings
from inference.sizes import Size
from modules.schema import nearest

# What the headers of our own files say of a network, for the official files, which have no such header.
RELEASED_FACTS: dict[str, dict[str, Any]] = {
    "stage_c": {"gdf": RELEASED_SPEC, "compression": 42.67, "image_size_px": 1024},
    "stage_b": {"gdf": RELEASED_SPEC, "compressor_scale": 0.75},
}
RELEASED_ENCODERS = {
    "text_encoder": "laion/CLIP-ViT-bigG-14-laion2B-39B-b160k",
    "image_encoder": "openai/clip-vit-large-patch14",
}


def one_of(value: str, choices: Mapping[str, object], what: str) -> None:
    """Raise ValueError when value is none of the choices."""
    if value not in choices:
        raise ValueError(f"{what}: found {value!r}; {nearest(value, choices)}")


@dataclass(frozen=True)
class StageSettings:
    """How one diffusion stage is sampled: SamplingSettings, with None for what its weights are to decide.

    What they do not say is as released.
    """

    steps: int | None = None
    guidance: float | tuple[float, float] | None = None
    shift: float | None = None
    sampler: str | None = None
    rescale: float | None = None

    def __post_init__(self) -> None:
        self.over(SamplingSettings())  # raises for what is impossible

    def over(self, defaults: SamplingSettings) -> SamplingSettings:
        """These settings, and the defaults where they are None."""
        return replace(defaults, **{key: value for key, value in asdict(self).items() if value is not None})


@dataclass(frozen=True)
class Request:
    """One picture to be made: with the weights, all that its pixels are a function of.

    seed: 0 to 2**63 - 1. width_px, height_px: None takes the model's own size or the given image's. image:
    path of the picture to start from, for the tasks that need one. strength: the noise level t in (0, 1] at
    which image_to_image starts; 1 keeps nothing of the image.
    """

    task: str = "text_to_image"
    prompt: str = ""
    negative_prompt: str = ""
    seed: int = 0
    width_px: int | None = None
    height_px: int | None = None
    image: str | None = None
    strength: float = 0.6
    stage_c: StageSettings = StageSettings()
    stage_b: StageSettings = StageSettings()

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"seed: expected a whole number from 0 to 2**63 - 1, found {self.seed}")
        if not 0 < self.strength <= 1:
            raise ValueError(f"strength: expected a number above 0, at most 1, found {self.strength}")

    @property
    def size(self) -> Size:
        """The size that was asked for; ValueError while it is still open."""
        if self.height_px is None or self.width_px is None:
            raise ValueError("height_px, width_px: not set yet")
        return Size(self.height_px, self.width_px)


@dataclass(frozen=True)
class Weights:
    """Where single networks and encoders come from: paths, or hub names for the two encoders.

    Each takes the place of what the folder of runs holds.
    """

    stage_a: str | None = None
    stage_b: str | None = None
    stage_c: str | None = None
    semantic_compressor: str | None = None
    previewer: str | None = None
    text_encoder: str | None = None
    image_encoder: str | None = None

    def given(self) -> dict[str, str]:
        """The entries that are set."""
        return {name: path for name, path in asdict(self).items() if path is not None}
