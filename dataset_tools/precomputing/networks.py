"""The networks of `precompute`: what they make of pictures and captions, as training would."""

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from dataset_tools.latent_facts import DTYPES, SEEN_BY, Facts, Part, caption_shapes, plain
from dataset_tools.precomputing.settings import Settings
from modules.conditions import compress_shrunk
from modules.devices import best, named_device, present
from modules.encoders import ImageEncoder, TextEncoder
from modules.host_memory import keep_freed
from modules.settings import identity
from modules.weights import load_network

ENCODERS: dict[str, Any] = {"image_encoder": ImageEncoder, "text_encoder": TextEncoder}


class Networks:
    """Those that the settings name, frozen. dtype: of what they make. device: None chooses one."""

    def __init__(self, settings: Settings, dtype: str, device: str | None, local_rank: int) -> None:
        self.settings, self.dtype = settings, dtype
        kind = best(present())
        chosen = f"cuda:{local_rank}" if kind == "cuda" else kind
        self.device = named_device(device or chosen, "--device", "cpu, cuda, cuda:1, mps")
        keep_freed(self.device)
        self.scale = settings.recipe.compressor_scale
        self.identities = {name: identity(name, each) for name, each in settings.networks.items()}
        self.networks: dict[str, Any] = {name: self._load(name) for name in settings.networks}

    def _load(self, name: str) -> Any:
        settings, dtype = self.settings.networks[name], DTYPES[self.settings.run.precision]
        if name in ENCODERS:
            network = ENCODERS[name](**settings.keywords()).to(self.device, dtype)
        else:
            network = load_network(
                settings.weights, name, device=self.device, dtype=dtype, changes=settings.config
            )
        return network.eval().requires_grad_(False)

    @property
    def sees_pictures(self) -> bool:
        """Whether any of them is made for pictures."""
        return any(name != "text_encoder" for name in self.networks)

    def pictures(self, images: Tensor) -> dict[str, Tensor]:
        """What each network makes of uint8 pictures [B, 3, H, W], by its name: [B, …]."""
        seen = images.to(self.device).float() / 255
        with torch.no_grad(), self._autocast():
            made = {name: self._made(name, seen) for name in self.networks if name != "text_encoder"}
        return {name: tensor.cpu().to(DTYPES[self.dtype]) for name, tensor in made.items()}

    def captions(self, texts: Sequence[str]) -> Iterator[dict[str, Tensor]]:
        """The states of each caption, by the names that they have in a sample."""
        if not texts:
            return
        with torch.no_grad(), self._autocast():
            states = self.networks["text_encoder"](list(texts))
        tokens, pooled = (tensor.cpu().to(DTYPES[self.dtype]) for tensor in states)
        for number, text in enumerate(texts):
            names = caption_shapes(Part("", [], []), text)
            yield dict(zip(names, (tokens[number], pooled[number]), strict=True))

    def empty(self) -> dict[str, Tensor]:
        """The states of the empty caption; nothing without a text encoder."""
        return next(self.captions([""])) if "text_encoder" in self.networks else {}

    def facts(self, versions: int, compressed: bool) -> Facts:
        """All that what is made depends on."""
        data, run = self.settings.data, self.settings.run
        fields = [name for name in (data.caption, data.alternative_caption) if name]
        return Facts(
            networks={name: self._part(name) for name in self.networks},
            data={key: plain(getattr(data, key)) for key in SEEN_BY},
            captions=fields if "text_encoder" in self.networks else [],
            seed=run.seed,
            versions=versions,
            dtype="fp32" if self.dtype == "fp32" else "bf16",
            precision=run.precision,
            compressed=compressed,
        )

    def _made(self, name: str, images: Tensor) -> Tensor:
        network = self.networks[name]
        if name == "semantic_compressor":
            return compress_shrunk(network, images, self.scale)
        return network.encode_unquantized(images) if name == "stage_a" else network(images)

    def _part(self, name: str) -> Part:
        """What a network makes, by letting it."""
        network, known = self.networks[name], self.identities[name]
        if name == "text_encoder":
            tokens, pooled = self.empty().values()
            return Part(known, list(tokens.shape), list(pooled.shape))
        factor = 1 if name == "image_encoder" else network.factor
        shape = self.pictures(torch.zeros(1, 3, 4 * factor, 4 * factor, dtype=torch.uint8))[name].shape[1:]
        if name == "image_encoder":
            return Part(known, list(shape))
        scale = self.scale if name == "semantic_compressor" else 1.0
        return Part(known, [shape[0]], factor=factor, scale=scale)

    def _autocast(self) -> Any:
        bf16 = self.settings.run.precision == "bf16"
        return torch.autocast(self.device.type, torch.bfloat16) if bf16 else nullcontext()
