"""The folders of a run's checkpoints: each whole or not there, the newest named, the old ones removed.

    <run>/checkpoints/step_00000100/              files, and manifest.json with size and SHA-256 of each
    <run>/checkpoints/step_00000200.unfinished/   being written, or left behind by a run that was killed
    <run>/checkpoints/latest                      the name of the newest

A flipped byte loads without complaint in most formats, hence the manifest. All may come from a stranger:
names lead nowhere else, and every file that is read stands in the manifest.
"""

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modules.weights.plain_data import read_json
from modules.whole_files import write_whole
from train.checkpoints.files import facts_of, flush

MANIFEST = "manifest.json"
LATEST = "latest"
PREFIX, UNFINISHED = "step_", ".unfinished"
NAME = re.compile(PREFIX + r"[0-9]{1,18}")
FILE = re.compile(r"[\w.-]+", re.ASCII)
LONGEST_NAME = 100  # bytes of `latest` that are read
MOST_PLAIN_BYTES = 1 << 26  # of a file of plain data: positions, counters, what was left out
READ = (".json", ".safetensors")  # what else lies in the folder is not looked at

Files = Mapping[str, Mapping[str, int | str]]
"""The name of each file of a checkpoint -> its size and SHA-256."""


class CheckpointError(ValueError):
    """A checkpoint that is missing, damaged, not written, or of another run: what, and what to do."""


class Checkpoints:
    """The checkpoints of one run. keep_last: so many stay; so do multiples of keep_every (0: none)."""

    def __init__(self, folder: Path, keep_every: int = 0, keep_last: int = 2) -> None:
        self.folder, self.keep_every, self.keep_last = folder, keep_every, keep_last

    def path(self, step: int) -> Path:
        """Where the checkpoint after `step` steps lies."""
        return self.folder / f"{PREFIX}{step:08d}"

    def unfinished(self, step: int) -> Path:
        """Where it lies while it is written."""
        return self.folder / f"{PREFIX}{step:08d}{UNFINISHED}"

    @property
    def are_there(self) -> bool:
        """Whether one is named as the newest; it need not be whole."""
        return (self.folder / LATEST).exists()

    def usable(self) -> list[Path]:
        """The checkpoint that `latest` names, and the older ones to fall back on, newest first.

        [] where nothing is named: the run starts anew. The first may not exist. What is newer than `latest`
        says is of a past that was given up.
        """
        if not self.are_there:
            return []
        pointer = self.folder / LATEST
        name, there = "", self._all()[::-1]
        if pointer.is_file():
            with pointer.open("rb") as file:
                name = file.read(LONGEST_NAME).decode(errors="replace").strip()
        if not NAME.fullmatch(name):  # not one of our names: anything may be the newest
            return there
        return [self.folder / name, *(path for path in there if step_of(path) < int(name[len(PREFIX) :]))]

    def clean(self) -> None:
        """Remove what a run that was killed has left half-written or half-removed."""
        for pattern in (f"*{UNFINISHED}", f"{LATEST}.*.tmp"):
            for path in self.folder.glob(pattern):
                _delete(path)

    def commit(self, step: int, files: Files) -> Path:
        """Make the files that lie in `unfinished(step)` the newest checkpoint; returns its path."""
        unfinished, path = self.unfinished(step), self.path(step)
        write_whole(unfinished / MANIFEST, json.dumps(files, indent=1))
        flush(unfinished)
        self._remove(path)  # of a past that was given up, or damaged
        unfinished.rename(path)
        flush(self.folder)
        write_whole(self.folder / LATEST, path.name)
        flush(self.folder)
        return path

    def prune(self) -> None:
        """Remove the old ones. To be called when the newest is safe."""
        latest = self.usable()
        kept = set(latest[: self.keep_last])
        for path in self._all():
            every = self.keep_every and step_of(path) % self.keep_every == 0
            if latest and path not in kept and not every:
                self._remove(path)

    def discard(self, step: int) -> None:
        """Remove what there is of a checkpoint that could not be finished."""
        shutil.rmtree(self.unfinished(step), ignore_errors=True)

    def _remove(self, path: Path) -> None:
        """Remove a checkpoint; one that is half-removed does not look like one."""
        if path.exists():
            doomed = path.with_name(f".{path.name}{UNFINISHED}")
            shutil.rmtree(doomed, ignore_errors=True)
            path.rename(doomed)
            _delete(doomed)

    def _all(self) -> list[Path]:
        """All that look whole, oldest first."""
        found = (path for path in self.folder.glob(f"{PREFIX}*") if NAME.fullmatch(path.name))
        return sorted(found, key=step_of)


def damage(folder: Path, share: int = 0, of: int = 1) -> str | None:
    """What is wrong with a checkpoint's files, or None; looks at every `of`-th file, from `share` on."""
    if not folder.is_dir():
        return f"{folder}: not there"
    try:
        expected = _read_manifest(folder)
    except (OSError, ValueError) as error:
        return f"{folder / MANIFEST}: cannot be read ({error})"
    for name in sorted(expected)[share::of]:
        try:
            if problem := _file_damage(folder / name, expected[name]):
                return problem
        except OSError as error:  # of the disk
            return f"{folder / name}: cannot be read ({error})"
    return None


def _file_damage(path: Path, facts: Mapping[str, Any]) -> str | None:
    if not path.is_file():
        return f"{path}: missing"
    if (size := path.stat().st_size) != facts.get("bytes"):
        return f"{path}: damaged (expected {facts.get('bytes')} bytes, found {size})"
    return None if facts_of(path) == facts else f"{path}: damaged (its checksum differs)"


def step_of(path: Path) -> int:
    """After how many steps a checkpoint was written."""
    return int(path.name.removeprefix(PREFIX))


def _read_manifest(folder: Path) -> dict[str, Any]:
    files = read_json(folder / MANIFEST, MOST_PLAIN_BYTES)
    if not files or not all(isinstance(facts, dict) for facts in files.values()):
        raise ValueError("expected the files with size and checksum of each")
    if strange := [name for name in files if not FILE.fullmatch(name) or name in (".", "..")]:
        raise ValueError(f"expected names of files in this folder, found {strange[0]!r}")
    there = {path.name for path in folder.iterdir() if path.suffix in READ}
    if more := sorted(there - files.keys() - {MANIFEST}):
        raise ValueError(f"it does not know {more[0]}")
    return files


def _delete(path: Path) -> None:
    """Remove a file or a folder; of a link, the link alone."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
