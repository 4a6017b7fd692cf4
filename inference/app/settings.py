"""The settings of `python -m inference.app`, and what visitors may ask for at most."""

from dataclasses import dataclass

from inference.loading import CascadeSettings
from inference.sizes import MAX_SIDE_PX, MIN_SIDE_PX
from modules.schema import bounded

MOST_PORT = 65535
TIMES_OWN_SIZE = 2  # the longest side that is offered, of that of the pictures that Stage C learned from


@dataclass(frozen=True)
class AppSettings(CascadeSettings):
    """What the command line sets beside the networks; docs/web.md explains each entry.

    loras, controlnets, ip_adapters: files or runs to offer; None: all that lie in the run's folder. output:
    where pictures are also kept, None: nowhere, they go when the page does. most_…: of one visitor's wish;
    most_side_px None is twice the side of the pictures that Stage C learned from. queue_length: wishes that
    wait at once.
    """

    loras: list[str] | None = None
    controlnets: list[str] | None = None
    ip_adapters: list[str] | None = None
    output: str | None = "outputs/pictures"
    host: str = "127.0.0.1"
    port: int = bounded(7860, 1, MOST_PORT)
    root_path: str = ""
    open_browser: bool = False
    most_side_px: int | None = bounded(None, MIN_SIDE_PX, MAX_SIDE_PX)
    most_steps: int = bounded(100, 1, 1000)
    most_images: int = bounded(4, 1, 64)
    most_letters: int = bounded(2000, 1, 100_000)
    upload_limit_mb: float = bounded(20.0, 0.01, 1000)
    queue_length: int = bounded(16, 1, 30)  # each waits in a thread, of which gradio has 40


@dataclass(frozen=True)
class Bounds:
    """What one wish may ask for at most. own_side_px: of the pictures that Stage C learned from."""

    own_side_px: int
    most_side_px: int
    most_steps: int
    most_images: int
    most_letters: int

    @classmethod
    def of(cls, settings: AppSettings, own_side_px: int) -> "Bounds":
        """Those that the settings name, for a Stage C of that size."""
        return cls(
            own_side_px=own_side_px,
            most_side_px=settings.most_side_px or min(MAX_SIDE_PX, TIMES_OWN_SIZE * own_side_px),
            most_steps=settings.most_steps,
            most_images=settings.most_images,
            most_letters=settings.most_letters,
        )

    @property
    def step_px(self) -> int:
        """Between two sizes that the page offers."""
        return max(1, self.own_side_px // 16)
