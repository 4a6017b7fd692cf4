"""What is stored with a run beside its results: the settings, the command, the versions."""

import json
import math
import os
import platform
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
import yaml

from modules.schema import ConfigError, join, one_line
from modules.whole_files import write_whole

PACKAGES = ("torch", "torchvision", "transformers", "safetensors", "hydra-core", "bitsandbytes")


class RunRecord:
    """<run>/config.yaml (the newest settings) and <run>/run.json (every start of the run).

    run_id: by which trackers know the run, as its checkpoint says; "" where there is none yet: then it is as
    run.json says, or new. Raises ConfigError when run.json cannot be read.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any], run_id: str = "") -> None:
        self.folder, self.settings = folder, settings
        self.path = folder / "run.json"
        before = read_record(self.path)
        self.starts: list[dict[str, Any]] = before["starts"]
        self.run_id: str = run_id or before["id"] or uuid.uuid4().hex[:8]

    def begin(self, step: int, world_size: int, device: str) -> None:
        """Note that the run starts, or goes on, at `step`."""
        self.starts.append(
            {
                "command": [sys.executable, *sys.orig_argv[1:]],
                "started": _now(),
                "from_step": step,
                "processes": world_size,
                "device": device,
                "hardware": hardware(device),
                "commit": commit(),
                "python": platform.python_version(),
                "versions": versions(),
            }
        )
        write_whole(self.folder / "config.yaml", yaml.safe_dump(dict(self.settings), sort_keys=False))
        self._write()

    def end(self, facts: Mapping[str, Any]) -> None:
        """Note that this start of the run ended, and with what; JSON has no word for what is not finite."""
        told = {key: None if is_beyond(value) else value for key, value in facts.items()}
        self.starts[-1] |= {"ended": _now(), **told}
        self._write()

    def changes(self) -> list[str]:
        """The settings that differ from those of the last start, one line each.

        Raises ConfigError when config.yaml cannot be read.
        """
        path = self.folder / "config.yaml"
        if not path.exists():
            return []
        try:
            saved = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (ValueError, yaml.YAMLError) as error:
            reason = one_line(f"{type(error).__name__}: {error}")
            raise ConfigError(f"{path}: not the settings of a run ({reason}); remove it to go on") from error
        before, now = dict(flat(saved)), dict(flat(self.settings))
        keys = [key for key in {**before, **now} if before.get(key) != now.get(key)]
        return [f"{key}: {before.get(key)} → {now.get(key)}" for key in keys]

    def _write(self) -> None:
        write_whole(self.path, json.dumps({"id": self.run_id, "starts": self.starts}, indent=1))


def read_record(path: Path) -> dict[str, Any]:
    """The run's id and starts as run.json has them; none before the first. Raises ConfigError if damaged."""
    if not path.exists():
        return {"id": "", "starts": []}
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return {"id": str(record["id"]), "starts": list(record["starts"])}
    except (ValueError, KeyError, TypeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise ConfigError(f"{path}: not the record of a run ({reason}); remove it to go on") from error


def flat(plain: Any, where: str = "") -> Iterator[tuple[str, Any]]:
    """Nested settings as (dotted key, value); a list is one value."""
    if isinstance(plain, Mapping):
        for key, value in plain.items():
            yield from flat(value, join(where, key))
    else:
        yield where, list(plain) if isinstance(plain, tuple) else plain


def is_beyond(value: Any) -> bool:
    """Whether a value is NaN or infinite, as a loss may be."""
    return isinstance(value, float) and not math.isfinite(value)


def hardware(device: str) -> str:
    """What a device is, by the name of its GPU or the kind of its processor."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    return f"{device} ({platform.system()} {platform.machine()}, {os.cpu_count()} cores)"


def versions() -> dict[str, str]:
    """The versions of the packages that results depend on."""
    found = {name: torch.__version__ if name == "torch" else _version(name) for name in PACKAGES}
    return {name: version for name, version in found.items() if version}


def commit() -> str | None:
    """The commit of this source tree, with a + if files differ from it; None outside a repository."""
    try:
        run = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty=+", "--abbrev=40"]
        return subprocess.run(
            run, capture_output=True, encoding="utf-8", check=True, timeout=10
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
