"""What a picture is made from, besides the weights: plain data that travels in the picture's own metadata."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from gdf import RELEASED_SPEC, SamplingSettings
from inference.adapters import (
    ControlSettings,
    ImagePromptSettings,
    LoRASettings,
    Margins,
    named_pictures,
    without_pictures,
)
from inference.sizes import Size, check_side
from modules.schema import convert, nearest

# What the headers of our own files say of a network, for the official files, which have no such header.
RELEASED_FACTS: dict[str, dict[str, Any]] = {
    "stage_c": {"gdf": RELEASED_SPEC, "compression": 42.67, "image_size_px": 1024},
    "stage_b": {"gdf": RELEASED_SPEC, "compressor_scale": 0.75, "random_scale": [0.5, 1.0]},
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
    which sampling starts where there is such a picture; 1 keeps nothing of it, None leaves it to the task.
    mask: path of a picture as large as image, white where inpaint draws anew. margins: what outpaint adds.
    keep: whether both put the picture's own pixels back where nothing was to be drawn. edge_px: width of the
    seam there; None is a 64th of the shorter side. The adapters may also be given as plain data.
    """

    task: str = "text_to_image"
    prompt: str = ""
    negative_prompt: str = ""
    seed: int = 0
    width_px: int | None = None
    height_px: int | None = None
    image: str | None = None
    strength: float | None = None
    mask: str | None = None
    margins: Margins = Margins()
    keep: bool = True
    edge_px: int | None = None
    loras: tuple[LoRASettings, ...] = ()
    controls: tuple[ControlSettings, ...] = ()
    image_prompt: ImagePromptSettings = ImagePromptSettings()
    stage_c: StageSettings = StageSettings()
    stage_b: StageSettings = StageSettings()

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"seed: expected a whole number from 0 to 2**63 - 1, found {self.seed}")
        if self.strength is not None and not 0 < self.strength <= 1:
            raise ValueError(f"strength: expected a number above 0, at most 1, found {self.strength}")
        for name in ("height_px", "width_px"):
            check_side(name, getattr(self, name))
        if self.edge_px is not None and self.edge_px < 0:
            raise ValueError(f"edge_px: expected at least 0, found {self.edge_px}")
        for name, kind in ADAPTERS.items():
            object.__setattr__(self, name, convert(kind, getattr(self, name), name))

    @property
    def size(self) -> Size:
        """The size that was asked for; ValueError while it is still open."""
        if self.height_px is None or self.width_px is None:
            raise ValueError("height_px, width_px: not set yet")
        return Size(self.height_px, self.width_px)

    @property
    def pictures(self) -> dict[str, str]:
        """Paths of all the pictures that this one is made from, by setting."""
        own = {"image": self.image, "mask": self.mask}
        given = {name: path for name, path in own.items() if path is not None}
        return given | dict(named_pictures(self.controls, self.image_prompt))

    @property
    def shared(self) -> "Request":
        """What all requests of a batch have to agree in."""
        controls, prompt = without_pictures(self.controls, self.image_prompt)
        blank = replace(self, prompt="", negative_prompt="", seed=0, controls=controls, image_prompt=prompt)
        return replace(blank, image=self.image and "", mask=self.mask and "")


ADAPTERS: dict[str, Any] = {
    "margins": Margins,
    "loras": tuple[LoRASettings, ...],
    "controls": tuple[ControlSettings, ...],
    "image_prompt": ImagePromptSettings,
}


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
