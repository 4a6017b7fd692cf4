"""The networks of a cascade: found before anything is built, loaded at first use, moved to their device."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from gdf import RELEASED_SAMPLING, SamplingSettings
from inference.offload import Offloaded
from inference.reading import Compile, Keeping, Offload, Quantize, per_network
from inference.settings import RELEASED_ENCODERS, RELEASED_FACTS, StageSettings, Weights, one_of
from modules.devices import has_format, named_device
from modules.encoders import cached_folder
from modules.host_memory import keep_freed
from modules.schema import bounded, from_plain
from modules.weights import (
    describe,
    encoder_folder,
    find_weights,
    fingerprint,
    folder_around,
    read_header,
)
from modules.weights.plain_data import read_json

T = TypeVar("T", bound=nn.Module)
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class PipelineIndex:
    """What is read of the index of a diffusers pipeline: the prior's pixels per latent."""

    resolution_multiple: float | None = bounded(None, least=1, most=1024)


class Networks:
    """The files of one cascade and what is loaded of them.

    run: a folder of runs, or one run. weights: single files that take the place of what run holds. ema: take
    averaged weights where there are any. device: where networks compute. dtype: "fp32", "bf16" or "fp16".
    offload, quantize, compile: as in `Keeping`; a format alone is that of Stage C and Stage B.
    """

    def __init__(
        self,
        run: str | None,
        weights: Weights,
        *,
        ema: bool,
        device: torch.device,
        dtype: str,
        offload: Offload = "none",
        quantize: Quantize = None,
        compile: Compile = False,
    ) -> None:
        one_of(dtype, DTYPES, "dtype")
        if run is not None and not Path(run).is_dir():
            raise FileNotFoundError(f"run: the folder {run} does not exist")
        self.run, self.weights, self.ema = run, weights, ema
        self.device, self.dtype_name = device, dtype
        self.keeping = Keeping(device, DTYPES[dtype], offload, per_network(quantize), compile, ema)
        keep_freed(device)
        self._paths: dict[str, Path] = {}
        self._facts: dict[str, dict[str, Any]] = {}
        self._fingerprints: dict[Path, str] = {}
        self._loaded: dict[tuple[str, str], nn.Module] = {}
        self._offloaded: dict[nn.Module, Offloaded] = {}

    def path(self, name: str) -> Path:
        """The file of a network. Raises FileNotFoundError when it is nowhere to be found."""
        if name not in self._paths:
            source = self.weights.given().get(name, self.run)
            if source is None:
                raise FileNotFoundError(
                    f"{name}: no weights given; set run=<folder of runs> or weights.{name}=<file>"
                )
            self._paths[name] = find_weights(source, name, ema=self.ema)
        return self._paths[name]

    def facts(self, name: str) -> dict[str, Any]:
        """What the file's header says of the network; for an official file, what was released with it."""
        if name not in self._facts:
            path = self.path(name)
            found, _ = describe(path, name)
            if found != name:
                raise ValueError(f"{name}: {path} holds the network {found}")
            told = pipeline_facts(name, path) | read_header(path, name)
            # A header that knows the diffusion is of our own training and complete.
            self._facts[name] = told if "gdf" in told else RELEASED_FACTS.get(name, {}) | told
        return self._facts[name]

    def sampling(self, stage: str, chosen: StageSettings) -> SamplingSettings:
        """How a stage is sampled: as chosen, else as its header says, else as released."""
        fact = self.facts(stage).get("sampling")
        if fact is None:
            return chosen.over(RELEASED_SAMPLING[stage])
        return chosen.over(from_plain(SamplingSettings, fact, f"{self.path(stage)}: sampling"))

    def encoder_source(self, encoder: str, stage: str) -> str:
        """Folder or hub name of an encoder: the one given, or the one the stage was trained with.

        Raises FileNotFoundError when neither is known.
        """
        return self.encoder_of(encoder, self.path(stage), self.facts(stage))

    def encoder_of(self, encoder: str, path: Path, facts: Mapping[str, Any]) -> str:
        """The same for any network: its file, and what is known of it."""
        if given := self.weights.given().get(encoder):
            return given
        beside = folder_around(path)
        source = named_encoder(facts.get(encoder), beside) or encoder_folder(beside, encoder)
        if source is None:
            raise FileNotFoundError(
                f"{encoder}: {path} names none; set weights.{encoder}=<folder or hub name> "
                f"(the released models use {RELEASED_ENCODERS[encoder]})"
            )
        return str(source)

    def check(self, names: Iterable[str]) -> None:
        """Raise FileNotFoundError unless all of these networks, and the encoders they need, are known."""
        for name in names:
            if name == "image_encoder":
                self.encoder_source(name, "stage_c")
            else:
                self.facts(name)
            if name in ("stage_b", "stage_c"):
                self.encoder_source("text_encoder", name)

    def peek(self, name: str) -> Any:
        """A network where it lies, to look at its structure."""
        return self._get(name, str(self.path(name)))

    @contextmanager
    def use(self, name: str) -> Iterator[Any]:
        """Lend a network, on the device."""
        with self.lend(self.peek(name)) as network:
            yield network

    def peek_encoder(self, encoder: str, stage: str) -> Any:
        """A stage's text or image encoder where it lies; two stages with one source share it."""
        return self._get(encoder, self.encoder_source(encoder, stage))

    @contextmanager
    def use_encoder(self, encoder: str, stage: str) -> Iterator[Any]:
        """Lend a stage's text or image encoder, on the device."""
        with self.lend(self.peek_encoder(encoder, stage)) as network:
            yield network

    def find(self, name: str, weights: str) -> Path:
        """The file of an adapter of that kind; FileNotFoundError, ValueError when there is none."""
        return find_weights(weights, name, self.ema)

    def peek_at(self, name: str, source: str | Path) -> Any:
        """The adapter in a file, or an encoder of any source, where it lies."""
        return self._get(name, str(source))

    @contextmanager
    def lend(self, network: T) -> Iterator[T]:
        """A network on the device; afterwards it goes back to where networks are kept."""
        if network in self._offloaded:
            with self._offloaded[network].lent():
                yield network
            return
        network.to(self.device)
        try:
            yield network
        finally:
            if self.keeping.offload != "none":
                network.to("cpu")

    def _get(self, name: str, source: str) -> Any:
        if (name, source) not in self._loaded:
            network, offloaded = self.keeping.read(name, source)
            self._loaded[name, source] = network
            if offloaded is not None:
                self._offloaded[network] = offloaded
        return self._loaded[name, source]

    def fingerprints(self, names: Iterable[str]) -> dict[str, str]:
        """Short checksums of the networks' files, by which a change of weights is noticed."""
        return {name: self.fingerprint(self.path(name)) for name in names if name not in RELEASED_ENCODERS}

    def fingerprint(self, path: Path) -> str:
        """A short checksum of a file; it is read once."""
        if path not in self._fingerprints:
            self._fingerprints[path] = fingerprint(path)
        return self._fingerprints[path]


def named_encoder(name: str | None, run: Path) -> Path | None:
    """The folder of the encoder that a file in the folder `run` says it was trained with.

    One that was made from a config lies in the run; another is a folder, or a copy from the hub, that is here
    already: only the user's own words fetch anything. FileNotFoundError when it is not here, ValueError for a
    way out of the run, as no training writes.
    """
    if name is None:
        return None
    if ".." in Path(name).parts:
        raise ValueError(
            f"{run}: its weights name the encoder {name!r}, outside of it; set weights.*_encoder"
        )
    folder = next((place for place in (run / name, Path(name)) if place.is_dir()), None)
    return folder or cached_folder(name)


def pipeline_facts(name: str, path: Path) -> dict[str, Any]:
    """What the index of a diffusers pipeline says of the network whose weights lie at `path` in it.

    ValueError for an index that cannot be read, or says something that cannot be.
    """
    index = folder_around(path) / "model_index.json"
    if name != "stage_c" or not index.is_file():
        return {}
    told = {key: value for key, value in read_json(index).items() if key == "resolution_multiple"}
    pixels_per_latent = from_plain(PipelineIndex, told, str(index)).resolution_multiple
    return {} if pixels_per_latent is None else {"compression": pixels_per_latent}


def pick_device(name: str) -> torch.device:
    """The device of that name, "auto" the best one; ValueError if it is not here."""
    return named_device(name, "device", "auto, cpu, cuda, cuda:1, mps")


def usual_format(device: torch.device) -> str:
    """The number format where none is named: fp32 on a CPU, else bf16 if the device has it, else fp16."""
    if device.type == "cpu":
        return "fp32"
    return "bf16" if has_format(device, torch.bfloat16) else "fp16"
