"""What a request says of adapters: LoRAs, ControlNets and image prompts, as plain data."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import ClassVar

from inference.sizes import MAX_SIDE_PX
from modules.schema import bounded


@dataclass(frozen=True)
class LoRASettings:
    """One LoRA.

    weights: its file or run. weight: how strongly it counts, 1 as it was trained, 0 not at all. tokens: for
    official files, which do not say it: the tokens that were added in training, in that order, each with the
    expression of the words that it began with.
    """

    shorthand: ClassVar[str] = "weights"
    weights: str
    weight: float = bounded(1.0)
    tokens: dict[str, str | None] = field(default_factory=dict)


@dataclass(frozen=True)
class ControlSettings:
    """One ControlNet.

    weights: its file or run. image: a photograph, from which the filter that the ControlNet was trained with
    makes the control; None: the picture of the request itself. raw: image is the control, ready made. scale:
    how strongly it counts. start, end: the share of Stage C's steps in which it does.
    """

    shorthand: ClassVar[str] = "weights"
    weights: str
    image: str | None = None
    raw: bool = False
    scale: float = bounded(1.0)
    start: float = bounded(0.0, 0, 1)
    end: float = bounded(1.0, 0, 1)

    def __post_init__(self) -> None:
        if not self.start < self.end:
            raise ValueError(f"end: expected more than start ({self.start}), found {self.end}")
        if self.raw and self.image is None:
            raise ValueError("image: missing; raw=true takes a control picture that is ready made")

    def active(self, step: int, steps: int) -> bool:
        """Whether it counts in a step, which is numbered from 0."""
        return self.start <= step / steps < self.end


@dataclass(frozen=True)
class ImagePromptSettings:
    """Pictures as part of the prompt, through an IP-Adapter.

    weights: its file or run; images: one or several pictures, none for no image prompt; scale: how strongly
    they count beside the text.
    """

    weights: str | None = None
    images: tuple[str, ...] = ()
    scale: float = bounded(1.0)

    def __post_init__(self) -> None:
        if self.images and self.weights is None:
            raise ValueError("weights: missing; name the IP-Adapter's file or run")
        if self.weights is not None and not self.images:
            raise ValueError("images: missing; name the pictures, or leave weights out")

    def __bool__(self) -> bool:
        return bool(self.images)


@dataclass(frozen=True)
class Margins:
    """How far outpainting goes beyond each side of a picture, in its pixels."""

    left_px: int = bounded(0, 0, MAX_SIDE_PX)
    top_px: int = bounded(0, 0, MAX_SIDE_PX)
    right_px: int = bounded(0, 0, MAX_SIDE_PX)
    bottom_px: int = bounded(0, 0, MAX_SIDE_PX)

    def __bool__(self) -> bool:
        return any((self.left_px, self.top_px, self.right_px, self.bottom_px))


def without_pictures(
    controls: tuple[ControlSettings, ...], prompt: ImagePromptSettings
) -> tuple[tuple[ControlSettings, ...], ImagePromptSettings]:
    """The same settings with all paths of pictures alike: what the requests of a batch must agree in."""
    blank = tuple(replace(control, image=control.image and "") for control in controls)
    return blank, replace(prompt, images=("",) * len(prompt.images))


def named_pictures(
    controls: tuple[ControlSettings, ...], prompt: ImagePromptSettings
) -> Iterator[tuple[str, str]]:
    """Setting and path of each picture that adapters look at."""
    for i, control in enumerate(controls):
        if control.image is not None:
            yield f"controls[{i}].image", control.image
    for i, path in enumerate(prompt.images):
        yield f"image_prompt.images[{i}]", path
