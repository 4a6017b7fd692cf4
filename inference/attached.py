"""Everything that requests put beside the networks of a cascade: LoRAs, ControlNets, image prompts."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import nn

from gdf import RELEASED_SAMPLING
from inference.controls import ControlNets
from inference.image_prompts import ImagePrompts
from inference.loras import LoRAs
from inference.networks import Networks
from inference.settings import Request


class Adapters:
    """The adapters of a cascade, each read when it is first asked for and kept."""

    def __init__(self, networks: Networks) -> None:
        self.loras = LoRAs(networks)
        self.controls = ControlNets(networks)
        self.image_prompts = ImagePrompts(networks)

    def check(self, request: Request, networks: Sequence[str]) -> None:
        """Raise ValueError or FileNotFoundError unless all that a request names fits the task's networks."""
        for name in ("controls", "image_prompt"):
            if getattr(request, name) and "stage_c" not in networks:
                raise ValueError(f"{name}: the task {request.task} does not draw with Stage C; leave it out")
        self.loras.check(request, [name for name in networks if name in RELEASED_SAMPLING])
        self.controls.check(request)
        self.image_prompts.check(request)

    def fingerprints(self, request: Request) -> dict[str, str]:
        """Short checksums of the adapters' files, by setting."""
        parts = (self.loras, self.controls, self.image_prompts)
        return {name: found for part in parts for name, found in part.fingerprints(request).items()}

    @contextmanager
    def on_stage(self, stage: str, network: nn.Module, request: Request) -> Iterator[None]:
        """With the request's adapters on a stage; afterwards it is bit for bit what it was."""
        with (
            self.loras.on_stage(stage, network, request),
            self.image_prompts.on_stage(stage, network, request),
        ):
            yield
