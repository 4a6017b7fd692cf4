"""Checkpoint folders: written whole or not at all, checked before they are read, pruned.

    <run>/checkpoints/step_00000100/   files and manifest.json (size and SHA-256 of each)
    <run>/checkpoints/latest           the name of the newest

A flipped byte loads without complaint in most formats, hence the manifest.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

MANIFEST = "manifest.json"
LATEST = "latest"
PREFIX = "step_"


class CheckpointError(ValueError):
    """A checkpoint that is missing, damaged, or of another run: says which file and what to do."""


class Checkpoints:
    """The checkpoints of one run. keep_every: those at multiples of it stay (0: only the newest)."""

    def __init__(self, folder: Path, keep_every: int) -> None:
        self.folder, self.keep_every = folder, keep_every

    def path(self, step: int) -> Path:
        """Where the checkpoint after `step` steps lies."""
        return self.folder / f"{PREFIX}{step:08d}"

    def newest(self) -> Path | None:
        """The checkpoint that `latest` names, or None. Raises CheckpointError if that one is gone."""
        pointer = self.folder / LATEST
        if not pointer.exists():
            return None
        path = self.folder / pointer.read_text().strip()
        if not path.is_dir():
            there = ", ".join(item.name for item in self._all()) or "none"
            raise CheckpointError(
                f"{pointer}: names '{path.name}', which is not there (found: {there}); write the one to go on"
                f" from into it, or remove it to start anew"
            )
        return path

    def write(self, step: int, fill: Callable[[Path], None]) -> Path:
        """Let `fill` write files into a new folder, then make it the newest checkpoint. Returns its path."""
        path = self.path(step)
        unfinished = path.with_name(f"{path.name}.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        fill(unfinished)
        (unfinished / MANIFEST).write_text(json.dumps(manifest(unfinished), indent=1))
        if path.exists():  # from a run that was killed before `latest` named it
            shutil.rmtree(path)
        os.replace(unfinished, path)
        write_text(self.folder / LATEST, path.name)
        self._prune(path)
        return path

    def _prune(self, newest: Path) -> None:
        for path in self._all():
            is_kept = self.keep_every and int(path.name.removeprefix(PREFIX)) % self.keep_every == 0
            if path != newest and not is_kept:
                shutil.rmtree(path)

    def _all(self) -> list[Path]:
        folders = [path for path in self.folder.glob(f"{PREFIX}*") if path.is_dir()]
        return sorted(path for path in folders if path.name.removeprefix(PREFIX).isdecimal())


def manifest(folder: Path) -> dict[str, dict[str, int | str]]:
    """Size and SHA-256 of every file in `folder`."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)
    return {
        str(path.relative_to(folder)): {"bytes": path.stat().st_size, "sha256": _sha256(path)}
        for path in files
    }


def verify(folder: Path) -> None:
    """Raise CheckpointError unless every file is as the manifest says."""
    try:
        expected = json.loads((folder / MANIFEST).read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{folder / MANIFEST}: cannot be read ({error}); {_advice(folder)}") from error
    found = manifest(folder)
    for name, facts in expected.items():
        if name not in found:
            raise CheckpointError(f"{folder / name}: missing; {_advice(folder)}")
        if found[name] != facts:
            raise CheckpointError(f"{folder / name}: damaged (its checksum differs); {_advice(folder)}")


def write_text(path: Path, text: str) -> None:
    """Write a file under a temporary name and rename it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.unfinished")
    unfinished.write_text(text)
    os.replace(unfinished, path)


def link(source: Path, target: Path) -> None:
    """Make `target` the same file as `source` (a copy where the file system has no links), atomically."""
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_name(f".{target.name}.unfinished")
    unfinished.unlink(missing_ok=True)
    try:
        os.link(source, unfinished)
    except OSError:
        shutil.copyfile(source, unfinished)
    os.replace(unfinished, target)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _advice(folder: Path) -> str:
    return f"write the name of another checkpoint into {folder.parent / LATEST}, or remove it to start anew"
