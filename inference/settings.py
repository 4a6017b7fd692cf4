"""What a picture is made from, besides the weights: plain data that travels in the picture's own metadata."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from gdf import RELEASED_SPEC
from inference.sizes import Size
from modules.schema import nearest

SAMPLERS = {
    "ddpm": "DDPMSampler",
    "ddim": "DDIMSampler",
    "lcm": "LCMSampler",
    "euler": "EulerSampler",
    "heun": "HeunSampler",
    "dpmpp_2m": "DPMSolverPP2MSampler",
}

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
    """How one diffusion stage is sampled.

    steps: network evaluations (Heun: twice as many). guidance: 1 is none; a pair runs from the first value at
    t = 1 to the second at t = 0. shift: of the log-SNR, > 1 spends more steps in the noise. rescale: share (0
    to 1) by which the guided prediction takes the spread of the conditional one (Lin et al. 2023, section
    3.4).
    """

    steps: int
    guidance: float | tuple[float, float]
    shift: float
    sampler: str = "ddpm"
    rescale: float = 0.7

    def __post_init__(self) -> None:
        if isinstance(self.guidance, list):  # JSON and YAML know no tuples
            object.__setattr__(self, "guidance", tuple(self.guidance))
        if isinstance(self.guidance, tuple) and len(self.guidance) != 2:
            raise ValueError(f"guidance: expected a number or a pair of numbers, found {list(self.guidance)}")
        if self.steps < 1:
            raise ValueError(f"steps: expected at least 1, found {self.steps}")
        if not self.shift > 0:
            raise ValueError(f"shift: expected a number above 0, found {self.shift}")
        if not 0 <= self.rescale <= 1:
            raise ValueError(f"rescale: expected a number from 0 to 1, found {self.rescale}")
        one_of(self.sampler, SAMPLERS, "sampler")

    @property
    def guided(self) -> bool:
        """Whether the unconditional prediction is needed at all."""
        return self.guidance not in (1, (1, 1))


@dataclass(frozen=True)
class StageCSettings(StageSettings):
    """Stage C with the released sampling settings as defaults."""

    steps: int = 20
    guidance: float | tuple[float, float] = 4.0
    shift: float = 2.0


@dataclass(frozen=True)
class StageBSettings(StageSettings):
    """Stage B with the released sampling settings as defaults."""

    steps: int = 10
    guidance: float | tuple[float, float] = 1.1
    shift: float = 1.0


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
    stage_c: StageCSettings = field(default_factory=StageCSettings)
    stage_b: StageBSettings = field(default_factory=StageBSettings)

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
