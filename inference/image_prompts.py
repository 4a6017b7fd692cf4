"""Image prompts: pictures whose features an IP-Adapter lets Stage C attend to."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from inference.naming import naming
from inference.networks import Networks
from inference.settings import Request
from inference.sources import fit, open_source, source_size
from modules.adapters.ip_adapter import IPAdapter, join_tokens
from modules.encoders import ImageEncoder
from modules.weights import read_header


class ImageTokens(NamedTuple):
    """[B, M, c] of the pictures, and of no picture."""

    pictures: Tensor
    nothing: Tensor


class ImagePrompts:
    """The image prompts of requests."""

    def __init__(self, networks: Networks) -> None:
        self.networks = networks
        self._fitting: set[IPAdapter] = set()

    def check(self, request: Request) -> None:
        """Raise ValueError or FileNotFoundError, naming the setting, for a prompt that cannot be given."""
        if not request.image_prompt:
            return
        for i, path in enumerate(request.image_prompt.images):
            open_source(path, f"image_prompt.images[{i}]")
        with naming("image_prompt"):
            self._fit(request)

    def _fit(self, request: Request) -> None:
        """Raise ValueError unless the adapter fits Stage C and the image encoder; tried out once."""
        adapter = self._adapter(request)
        if adapter in self._fitting:
            return
        adapter.attach(self.networks.peek("stage_c"))
        adapter.detach()
        blank = torch.zeros(1, 3, 8, 8)
        self._tokens(request, self._features(request, blank))  # says when the encoder is another
        self._fitting.add(adapter)

    def fingerprints(self, request: Request) -> dict[str, str]:
        """A short checksum of the adapter's file, by setting."""
        if not request.image_prompt:
            return {}
        return {"image_prompt": self.networks.fingerprint(self._path(request))}

    def tokens(self, batch: Sequence[Request]) -> ImageTokens:
        """Image tokens for each picture of a batch of requests with image prompts."""
        rows = [self._row(request) for request in batch]
        return ImageTokens(*(torch.cat(part) for part in zip(*rows, strict=True)))

    @contextmanager
    def on_stage(self, stage: str, network: nn.Module, request: Request) -> Iterator[None]:
        """Stage C with the attention to the request's image tokens, if it has an image prompt."""
        if stage != "stage_c" or not request.image_prompt:
            yield
            return
        with self.networks.lend(self._adapter(request)) as adapter:
            adapter.scale = request.image_prompt.scale
            adapter.attach(network)
            try:
                yield
            finally:
                adapter.detach()

    def _row(self, request: Request) -> ImageTokens:
        pictures = [open_source(path, "image_prompt.images") for path in request.image_prompt.images]
        features = [self._features(request, fit(p, source_size(p))[None]) for p in pictures]
        tokens = [self._tokens(request, each) for each in features]
        nothing = [self._tokens(request, torch.zeros_like(each)) for each in features]
        return ImageTokens(join_tokens(tokens), join_tokens(nothing))

    def _features(self, request: Request, image: Tensor) -> Tensor:
        """Of one picture [1, 3, H, W]; each by itself, for they differ in size."""
        path, adapter = self._path(request), self._adapter(request)
        source = self.networks.encoder_of("image_encoder", path, read_header(path, "ip_adapter"))
        encoder: ImageEncoder = self.networks.peek_at("image_encoder", source)
        with self.networks.lend(encoder):
            return encoder.features(image.to(self.networks.device), adapter.reads)

    def _tokens(self, request: Request, features: Tensor) -> Tensor:
        with self.networks.lend(self._adapter(request)) as adapter:
            return adapter(features)

    def _path(self, request: Request) -> Path:
        return self.networks.find("ip_adapter", request.image_prompt.weights or "")

    def _adapter(self, request: Request) -> IPAdapter:
        return self.networks.peek_at("ip_adapter", self._path(request))
