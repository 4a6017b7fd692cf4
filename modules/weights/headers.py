"""What a file's header says of its network: plain data of the kinds and sizes that are ever read of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from modules.schema import bounded, from_plain
from modules.weights.plain_data import parse_json

HEADER_KEY = "kaskade"
MOST_PX = 16384


@dataclass(frozen=True)
class Known:
    """The entries that are read, by whichever part of the project; a header may say more.

    Numbers: pixels of a side, or per latent, and shares of a picture's size.
    """

    network: str = ""
    config: dict[str, Any] | None = None
    layout: str = ""
    parts: dict[str, dict[str, Any]] = field(default_factory=dict)
    gdf: dict[str, Any] | None = None
    sampling: dict[str, Any] | None = None
    compression: float | None = bounded(None, least=1, most=1024)
    image_size_px: int | None = bounded(None, least=16, most=MOST_PX)
    compressor_scale: float | None = bounded(None, least=1e-3, most=1)
    random_scale: tuple[float, float] | None = bounded(None, least=1e-3, most=1)
    control_px_per_latent: float | None = bounded(None, least=1, most=1024)
    filter: dict[str, Any] | None = None
    text_encoder: str | None = None
    image_encoder: str | None = None
    base: dict[str, Any] | None = None
    tokens: dict[str, str | None] = field(default_factory=dict)
    merged: list[dict[str, Any]] = field(default_factory=list)
    numbering: list[dict[str, Any]] = field(default_factory=list)
    alphas: dict[str, float] = field(default_factory=dict, metadata={"least": 0, "most": 1e6})
    norms_of: Literal["patched", "original"] | None = None


READ = {entry.name for entry in fields(Known)}


def parse_header(path: object, metadata: Mapping[str, str] | None) -> dict[str, Any]:
    """Our header among a file's metadata; {} where there is none.

    ValueError where it is not readable, or says something that cannot be.
    """
    where = f"{path}: its header"
    header = parse_json((metadata or {}).get(HEADER_KEY, "{}"), where)
    for name, part in checked(header, where).parts.items():
        checked(part, f"{where}: parts: {name}")
    return header


def checked(header: Mapping[str, Any], where: str) -> Known:
    """The entries that are known; ConfigError, beginning with `where`, for those that cannot be."""
    return from_plain(Known, {key: value for key, value in header.items() if key in READ}, where)
