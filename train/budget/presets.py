"""`memory=24gb`: at the start of a run, choose what makes it fit, say what that is, and keep to it."""

import hashlib
import json
from collections.abc import Collection, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from modules.schema import ConfigError, from_plain
from train.budget.measures import KEYS, Choice, Chooser
from train.budget.memory import GB, Needs
from train.budget.paper import Paper
from train.budget.precomputed import parts_there
from train.config import MemoryConfig

PRESETS_GB = (8, 12, 16, 24, 48, 80)
CHOSEN = {*KEYS.values(), "data.batch_size", "run.num_accum", "run.clip_norm", "parallel.mode"}
HELD = (".frozen_weights", ".offload")
IRRELEVANT = ("dir", "num_steps", "seed", "save_every", "keep_every", "keep_last", "log_every", "export")


@dataclass(frozen=True)
class Fitted:
    """Settings that fit, and a line that says why."""

    plain: dict[str, Any]
    line: str


@dataclass
class Counted:
    """A run counted once, for whatever is to be known of it."""

    plain: Mapping[str, Any]
    typed: Collection[str] = ()
    processes: int = 1
    latents: Collection[str] | None = None  # as of `Paper`
    chooser: Chooser = field(init=False)

    def __post_init__(self) -> None:
        mode = self.plain["parallel"]["mode"]
        shards = self.processes if mode in ("fsdp", "hsdp") else 1
        paper = Paper(self.plain, self.latents)
        self.chooser = Chooser(Needs(paper, shards), self.typed, self.processes)

    def choice(self, gb: float) -> Choice | None:
        """The cheapest that fits."""
        return self.chooser.cheapest(gb * GB)

    def smallest(self) -> int | None:
        """The smallest preset that fits."""
        return next((gb for gb in PRESETS_GB if self.choice(gb)), None)


def fitted(
    plain: Mapping[str, Any],
    typed: Collection[str] = (),
    processes: int = 1,
    latents: Collection[str] | None = None,
) -> Fitted:
    """The run's settings with what its `memory` preset chooses for it.

    plain: composed settings. typed: dotted keys of the command line, which keep their values. processes: of
    the run. latents: as of `Paper`. Where the run's folder holds a choice for the same settings, that is
    taken: a resumed run does as it did, on any number of processes. Raises ConfigError, one line, when
    nothing fits.
    """
    memory = from_plain(MemoryConfig, plain["memory"], "memory")
    made_for = checksum(plain, typed)
    kept = stored(Path(plain["run"]["dir"]))
    if kept is not None and (kept.gb, kept.made_for) == (memory.gb, made_for):
        return Fitted(changed(plain, kept), line(kept, processes))
    counted = Counted(plain, typed, processes, latents)
    choice = counted.choice(memory.gb)
    if choice is None:
        raise ConfigError(refusal(counted, memory.gb))
    expected = round(choice.memory.peak / GB, 2)
    words = counted.chooser.words(choice.measures)
    memory = MemoryConfig(memory.gb, choice.changes, expected, words, made_for, processes)
    return Fitted(changed(plain, memory), line(memory, processes))


def line(memory: MemoryConfig, processes: int) -> str:
    """What was chosen, and whether it was for as many processes as there are now."""
    then = memory.processes
    others = "" if processes == then else f" (processes then: {then}, now: {processes})"
    return (
        f"memory={memory.gb:g}gb: {memory.text}; expected are at most {memory.expected_gb:.1f} GB,"
        f" counted{others}, not measured"
    )


def refusal(counted: Counted, gb: float) -> str:
    """Why nothing fits, and what would."""
    least = counted.chooser.least()
    pinned = pinned_keys(counted.typed)
    typed = f" (typed, and so kept: {', '.join(pinned)})" if pinned else ""
    smallest = counted.smallest()
    advice = f"the smallest preset that fits is memory={smallest}gb" if smallest else "no preset fits"
    return (
        f"memory: {gb:g} GB are not enough: at least {least.memory.peak / GB:.1f} GB are needed even with"
        f" {counted.chooser.words(least.measures)}{typed}; {advice}"
    )


def pinned_keys(typed: Collection[str]) -> list[str]:
    """What is typed of what could have been chosen."""
    return sorted(key for key in typed if key in CHOSEN or key.endswith(HELD))


def changed(plain: Mapping[str, Any], memory: MemoryConfig) -> dict[str, Any]:
    """The settings with what was chosen, and the choice itself."""
    found = deepcopy(dict(plain))
    for key, value in (memory.chosen or {}).items():
        *groups, name = key.split(".")
        entry = found
        for group in groups:
            entry = entry.setdefault(group, {})
        entry[name] = value
    found["memory"] = dict(vars(memory))
    return found


def stored(folder: Path) -> MemoryConfig | None:
    """The choice of the run in this folder, if it has made one."""
    path = folder / "config.yaml"
    try:
        entry = (yaml.safe_load(path.read_text(encoding="utf-8")) or {}).get("memory")
        return None if entry is None else from_plain(MemoryConfig, entry, "memory")
    except (OSError, ValueError, AttributeError, yaml.YAMLError):
        return None  # nothing there that can be kept to


def checksum(plain: Mapping[str, Any], typed: Collection[str]) -> str:
    """By which settings are known again that a choice depends on."""
    run = {key: value for key, value in plain["run"].items() if key not in IRRELEVANT}
    data = {key: plain["data"].get(key) for key in ("image_size_px", "batch_size", "control")}
    parts = {name: plain.get(name) for name in ("recipe", "model", "optim", "parallel")}
    latents = parts_there(plain)
    text = json.dumps([run, data, parts, pinned_keys(typed), latents], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
