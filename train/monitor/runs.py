"""The folders of runs, and all that one of them holds."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from modules.schema import ConfigError, one_line
from train.monitor.table import EMPTY, Table, read_table

SIGNS = ("run.json", "metrics.csv", "config.yaml")
MOST_RUNS = 500
DEEPEST = 3  # folders below the one that was named
SHEET = re.compile(r"step_(\d{1,15})\.png")


class Sheet(NamedTuple):
    """A sample sheet: drawn after so many steps."""

    step: int
    path: Path


@dataclass(frozen=True)
class Run:
    """What is known of a run. problems: one line for each file that could not be read."""

    name: str
    folder: Path
    table: Table = EMPTY
    starts: tuple[Mapping[str, Any], ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    sheets: tuple[Sheet, ...] = ()  # newest first
    written: float = 0.0  # when metrics.csv or run.json was last written, seconds since 1970; 0: never
    problems: tuple[str, ...] = ()

    def setting(self, *keys: str) -> Any:
        """A setting by its keys, from the outermost; None where there is none."""
        found: Any = self.settings
        for key in keys:
            found = found.get(key) if isinstance(found, Mapping) else None
        return found

    def whole_number(self, *keys: str) -> int | None:
        """The same, if it is a whole number above 0."""
        found = self.setting(*keys)
        return found if isinstance(found, int) and not isinstance(found, bool) and found > 0 else None


def find_runs(folder: Path) -> dict[str, Path]:
    """The runs in a folder by name: the folder itself if it is one, or not there yet, else those below it.

    Newest first. Raises ConfigError for what is no folder, and for one without any run.
    """
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"run: expected the folder of a run, found the file {folder}")
    if is_run(folder) or not folder.exists() or not any(folder.iterdir()):
        return {folder.resolve().name: folder}
    found = sorted(_below(folder, DEEPEST), key=_age)[:MOST_RUNS]
    if not found:
        raise ConfigError(f"run: no run in {folder}; expected a folder with {' or '.join(SIGNS)}")
    return {path.relative_to(folder).as_posix(): path for path in found}


def is_run(folder: Path) -> bool:
    """Whether a training has written here."""
    return any((folder / sign).is_file() for sign in SIGNS)


def _below(folder: Path, depth: int) -> list[Path]:
    found = []
    for path in folder.iterdir():
        if path.is_dir() and not path.name.startswith("."):
            found += [path] if is_run(path) else _below(path, depth - 1) if depth > 1 else []
    return found


def _age(folder: Path) -> float:
    return -written_at(folder)


def written_at(folder: Path) -> float:
    """When the run last wrote its metrics or record, in seconds since 1970; 0 when never."""
    times = [0.0]
    for name in ("metrics.csv", "run.json"):
        try:
            times.append((folder / name).stat().st_mtime)
        except OSError:
            continue
    return max(times)


def stamp(folder: Path) -> tuple[Any, ...]:
    """Something that differs once the run has written anything that `read_run` would tell."""
    places = [folder / name for name in SIGNS] + [folder / "samples"]
    return tuple(_state(place) for place in places)


def _state(place: Path) -> tuple[int, int, int]:
    try:
        found = place.stat()
    except OSError:
        return (0, 0, 0)
    return (found.st_ino, found.st_size, found.st_mtime_ns)


def read_run(name: str, folder: Path) -> Run:
    """All that a run has written so far; whatever cannot be read is told of and left out."""
    problems: list[str] = []
    written = written_at(folder)
    table = read_table(folder / "metrics.csv")
    starts = _starts(folder / "run.json", problems)
    settings = _settings(folder / "config.yaml", problems)
    sheets = _sheets(folder / "samples", problems)
    told = (*table.problems, *problems)
    return Run(name, folder, table, tuple(starts), settings, tuple(sheets), written, told)


def _starts(path: Path, problems: list[str]) -> list[Mapping[str, Any]]:
    try:
        starts = json.loads(path.read_text(encoding="utf-8"))["starts"]
        if not isinstance(starts, list) or not all(isinstance(start, dict) for start in starts):
            raise ValueError("'starts' is no list of starts")
        return starts
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        problems.append(f"{path.name}: cannot be read ({one_line(error)})")
        return []


def _settings(path: Path, problems: list[str]) -> Mapping[str, Any]:
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise ValueError("expected settings")
        return found
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        problems.append(f"{path.name}: cannot be read ({one_line(error)})")
        return {}


def _sheets(folder: Path, problems: list[str]) -> list[Sheet]:
    try:
        named = [(SHEET.fullmatch(path.name), path) for path in folder.iterdir()]
    except FileNotFoundError:
        return []
    except OSError as error:
        problems.append(f"{folder.name}: cannot be read ({error.strerror})")
        return []
    sheets = [Sheet(int(match[1]), path) for match, path in named if match]
    return sorted(sheets, reverse=True)
