"""The settings of the stream that training reads (`data` of a training config)."""

import math
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from typing import Any

from dataset_tools.buckets import RELEASED_RATIOS, Buckets
from dataset_tools.decode import CROPS
from dataset_tools.filters import Filter
from dataset_tools.images import MAX_MEGAPIXELS
from modules.adapters.filters import ControlFilter, build_filter

SPLITS = ("auto", "shards", "samples")
MISSING_CAPTIONS = ("skip", "empty")


@dataclass
class SourceConfig:
    """One of several data sets that are mixed."""

    shards: str | list[str]
    weight: float = 1.0
    name: str = ""  # in place of what `shards` says


@dataclass
class DataConfig:
    """What is read, and what becomes of it; `configs/data/default.yaml` explains every key."""

    shards: str | list[str] | None = None  # see sources.expand
    sources: list[SourceConfig] = field(default_factory=list)
    epochs: int | None = None
    resample: bool = False
    image_size_px: int = 768
    batch_size: int = 8
    multiple_px: int = 32
    aspect_ratios: list[str | float] = field(default_factory=lambda: list(RELEASED_RATIOS))
    inverse_ratios: bool = True
    random_ratio: float = 0.05
    crop: str = "center"
    flip: float = 0.0
    control: dict[str, Any] | None = None
    filters: list[Filter] = field(default_factory=list)
    caption: str = "txt"
    alternative_caption: str | None = None
    alternative_share: float = 0.0
    missing_caption: str = "skip"
    max_megapixels: float = MAX_MEGAPIXELS
    shuffle: int = 10000
    split: str = "auto"
    num_workers: int = 4
    prefetch: int = 4
    cache_dir: str | None = None
    cache_gb: float = 100.0
    allow_commands: bool = False

    def check(self) -> None:
        """Raise ValueError, in one line that names the key, for a value that cannot be used."""
        self._check_sources()
        for key in ("image_size_px", "batch_size", "multiple_px", "prefetch"):
            _require(getattr(self, key) >= 1, key, getattr(self, key), "at least 1")
        for key in ("shuffle", "num_workers", "cache_gb"):
            _require(getattr(self, key) >= 0, key, getattr(self, key), "0 or more")
        _require(self.max_megapixels > 0, "max_megapixels", self.max_megapixels, "more than 0")
        for key in ("random_ratio", "flip", "alternative_share"):
            _require(0 <= getattr(self, key) <= 1, key, getattr(self, key), "a share from 0 to 1")
        for key, known in (("crop", CROPS), ("split", SPLITS), ("missing_caption", MISSING_CAPTIONS)):
            _require_one_of(key, getattr(self, key), tuple(known))
        for each in self.filters:
            each.check()
        self.control_filter()
        self.buckets()

    def named_sources(self) -> list[SourceConfig]:
        """What is read: `sources`, each with a name of its own, or `shards` alone, without a name."""
        if self.shards:
            return [SourceConfig(self.shards)]
        return [replace(source, name=source.name or str(source.shards)) for source in self.sources]

    def _check_sources(self) -> None:
        if not self.shards and not self.sources:
            raise ValueError("data.shards: missing; name a folder of shards, a .tar, a glob, a URL, a list")
        if self.shards and self.sources:
            raise ValueError("data.sources: given besides data.shards; take that away with data.shards=null")
        names = [source.name for source in self.named_sources()]
        for name in names:
            _require(
                names.count(name) == 1, "sources", f"{name!r} twice", "a name of its own for each source"
            )
        for source in self.sources:
            found = f"{source.weight} ({source.name or source.shards})"
            _require(0 < source.weight < math.inf, "sources.weight", found, "a number above 0")
        if self.epochs is None:
            return
        _require(self.epochs >= 1, "epochs", self.epochs, "at least 1, or null for no end")
        for key in ("sources", "resample"):
            if getattr(self, key):
                raise ValueError(f"data.epochs: has no meaning with data.{key}; take one of the two away")

    def in_order(self, batch_size: int) -> "DataConfig":
        """The same pictures in the order of their shards, without end, read by the process that asks."""
        settings = {"epochs": None, "resample": False, "num_workers": 0, "shuffle": 0, "split": "samples"}
        return replace(self, batch_size=batch_size, **settings)  # type: ignore[arg-type]

    def control_filter(self) -> ControlFilter | None:
        """The filter that data workers run, if any. Raises ValueError for one that cannot be made."""
        made = build_filter(self.control, where="data.control") if self.control else None
        return made if made and made.in_workers else None

    def buckets(self) -> Buckets:
        """The picture sizes of this config. Raises ValueError when a ratio or the size does not work."""
        return Buckets(self.image_size_px**2, self.aspect_ratios, self.multiple_px, self.inverse_ratios)


def _require(fine: bool, key: str, found: Any, expected: str) -> None:
    if not fine:
        raise ValueError(f"data.{key}: expected {expected}, found {found}")


def _require_one_of(key: str, found: str, known: tuple[str, ...]) -> None:
    if found not in known:
        nearest = get_close_matches(found, known, n=1, cutoff=0.0)[0]
        raise ValueError(
            f"data.{key}: {found!r} is unknown; did you mean {nearest!r}? Known: {', '.join(known)}"
        )
