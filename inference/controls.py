"""ControlNets: from a picture, by way of the filter that each was trained with, to maps for Stage C."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from inference.adapters import ControlSettings
from inference.masks import masks_at
from inference.naming import naming
from inference.networks import Networks
from inference.rng import stage_generator
from inference.settings import Request
from inference.sizes import Size
from inference.sources import Source, fit, open_source, to_pixels
from modules.adapters.controlnet import ControlNet, Controls, check_fits
from modules.adapters.filters import ControlFilter, build_filter, released_filter
from modules.adapters.filters.inpainting import painted_over
from modules.pictures import resized
from modules.weights import read_header

RELEASED_FACTOR = 32  # pixels per latent of the released compressor
RAW_MODES = {1: "L", 3: "RGB", 4: "RGBA"}  # of pictures that are a control of so many channels
INPAINTING = "inpainting"


class ControlNets:
    """The ControlNets that requests name."""

    def __init__(self, networks: Networks) -> None:
        self.networks = networks
        self._filters: dict[Path, ControlFilter] = {}

    def check(self, request: Request) -> None:
        """Raise ValueError or FileNotFoundError, naming the setting, for a control that cannot be given."""
        for i, settings in enumerate(request.controls):
            if settings.image is not None:
                open_source(settings.image, f"controls[{i}].image")
            with naming(f"controls[{i}]"):
                check_fits(self._network(settings), self.networks.peek("stage_c"))
                self._check_picture(settings, request)

    def _check_picture(self, settings: ControlSettings, request: Request) -> None:
        if settings.raw:
            channels = self._network(settings).c_in
            if channels not in RAW_MODES:
                raise ValueError(f"raw: no picture has the {channels} channels that {settings.weights} wants")
            return
        inpainting = self._spec(settings)["name"] == INPAINTING
        if inpainting and not (settings.image is None and (request.mask or request.margins)):
            raise ValueError(
                f"{settings.weights} is for inpainting: leave image out and set task=inpaint or "
                "task=outpaint; or set raw=true with a picture that has the mask as its transparency channel"
            )
        if settings.image is None and request.image is None:
            raise ValueError(f"image: missing; the task {request.task} has no picture of its own to look at")
        self._filter(settings)

    def fingerprints(self, request: Request) -> dict[str, str]:
        """Short checksums of the files, by setting, and of the compressor, which filters may look through."""
        files = {f"controls[{i}]": self._path(settings) for i, settings in enumerate(request.controls)}
        if files:
            with suppress(FileNotFoundError):
                files["semantic_compressor"] = self.networks.path("semantic_compressor")
        return {name: self.networks.fingerprint(file) for name, file in files.items()}

    def maps(self, batch: Sequence[Request], grid: tuple[int, int], source: Source | None) -> list[Controls]:
        """For each ControlNet of a batch of requests its maps [B, C, h, w], by block.

        grid: height and width of Stage C's latents. source: the requests' own pictures, for controls that
        are given none.
        """
        return [self._maps(i, batch, grid, source) for i in range(len(batch[0].controls))]

    def _maps(
        self, i: int, batch: Sequence[Request], grid: tuple[int, int], source: Source | None
    ) -> Controls:
        # Each picture by itself: some filters look at all of a batch, on which no picture is to depend.
        rows = [
            self.control(i, request, grid, None if source is None else source.row(row))
            for row, request in enumerate(batch)
        ]
        with self.networks.lend(self._network(batch[0].controls[i])) as network:
            return network(torch.cat(rows).to(self.networks.device))

    def control(self, i: int, request: Request, grid: tuple[int, int], source: Source | None) -> Tensor:
        """What a ControlNet is to see for one request: [1, c, h, w]."""
        settings = request.controls[i]
        size = Size(*(round(side * self._pixels_per_latent(settings)) for side in grid))
        if settings.raw:
            return resized(self._ready_made(settings), *size)
        if settings.image is not None:
            source = Source(fit(open_source(settings.image), request.size)[None])
        assert source is not None  # the check sees to it
        images = resized(source.images, *size).to(self.networks.device)
        if source.masks is not None and self._spec(settings)["name"] == INPAINTING:
            return painted_over(images, masks_at(source.masks, size))
        made, generators = self._filter(settings), [stage_generator(request.seed, f"controls[{i}]")]
        if made.compressor is None:
            return made(images, generators)
        with self.networks.lend(made.compressor):
            return made(images, generators)

    def _ready_made(self, settings: ControlSettings) -> Tensor:
        mode = RAW_MODES[self._network(settings).c_in]
        return to_pixels(open_source(settings.image or "", mode=mode))[None]

    def _pixels_per_latent(self, settings: ControlSettings) -> float:
        """Of the pictures that filters look at, as in training: as the file says, or as released."""
        told = read_header(self._path(settings), "controlnet").get("control_px_per_latent")
        factor = self._network(settings).factor
        if told or factor > 1:
            return told or factor
        compressor = self._compressor()
        return RELEASED_FACTOR if compressor is None else compressor.factor

    def _filter(self, settings: ControlSettings) -> ControlFilter:
        path = self._path(settings)
        if path not in self._filters:
            self._filters[path] = build_filter(self._spec(settings), self._compressor(), "filter")
        return self._filters[path]

    def _spec(self, settings: ControlSettings) -> Mapping[str, Any]:
        """Which filter a ControlNet was trained with. ValueError when it is not known."""
        network, spec = self._network(settings), read_header(self._path(settings), "controlnet").get("filter")
        try:
            return spec or released_filter(network.config)
        except ValueError as error:
            raise ValueError(f"{error}; give a control picture that is ready made, with raw=true") from None

    def _compressor(self) -> Any:
        try:
            return self.networks.peek("semantic_compressor")
        except FileNotFoundError:
            return None  # most filters need none

    def _network(self, settings: ControlSettings) -> ControlNet:
        return self.networks.peek_at("controlnet", self._path(settings))

    def _path(self, settings: ControlSettings) -> Path:
        return self.networks.find("controlnet", settings.weights)
