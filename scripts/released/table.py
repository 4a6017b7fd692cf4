"""The table of released weights: weights.yaml beside this file."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

TABLE = Path(__file__).with_name("weights.yaml")
GB = 1e9


@dataclass(frozen=True)
class Licence:
    """A licence: the name that consent is given by, its title, where it stands, what it says in one line.

    ask: whether nothing is fetched without consent.
    """

    key: str
    name: str
    url: str
    says: str = ""
    ask: bool = False


@dataclass(frozen=True)
class Released:
    """One file of weights; or an encoder, which is several files of a repository of the hub.

    place: where configs look for it: a path under the root of the project, or the encoder's hub name. size:
    in bytes, as the table knows it. known: how it does. licence: its key. repo, name, revision: at the hub.
    url, sha256: of a file that is not there; sha256 may be the beginning of one.
    """

    place: str
    size: int
    known: str
    licence: str
    repo: str | None = None
    name: str = ""
    revision: str = "main"
    url: str | None = None
    sha256: str | None = None

    @property
    def is_encoder(self) -> bool:
        """Whether it goes into the hub's cache, not into models/."""
        return self.repo == self.place


@cache
def table() -> dict[str, Any]:
    """The table as it is written."""
    plain: dict[str, Any] = yaml.safe_load(TABLE.read_text(encoding="utf-8"))
    return plain


def licences() -> dict[str, Licence]:
    """All licences by key."""
    return {key: Licence(key, **entry) for key, entry in table()["licences"].items()}


@cache
def released() -> dict[str, Released]:
    """All entries by their place."""
    plain = table()
    found = [_file(place, entry) for place, entry in plain["files"].items()]
    for repo, entry in plain["encoders"].items():
        found.append(Released(repo, entry["bytes"], entry["known"], repo=repo, **plain["repos"][repo]))
    return {entry.place: entry for entry in found}


def _file(place: str, entry: dict[str, Any]) -> Released:
    name = entry.get("name", Path(place).name)
    if repo := entry.get("repo"):
        origin = {"repo": repo, "name": name, **table()["repos"][repo]}
    else:
        origin = {"url": entry["url"], "sha256": str(entry["sha256"]), "licence": "torchvision"}
    return Released(place, entry["bytes"], entry["known"], **origin)


def amount(size: float) -> str:
    """Bytes for people, in units of 1000."""
    for unit, bound in (("GB", GB), ("MB", 1e6), ("kB", 1e3)):
        if size >= bound:
            return f"{size / bound:.3g} {unit}"
    return f"{size:.0f} B"
