"""Which of the released weights somebody needs: those that an experiment's settings name, or a set."""

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from modules.schema import nearest, one_line
from scripts.released.table import Released, released, table

ROOT = Path(__file__).parents[2]
STAGES_IN_TWO_SIZES = ("stage_b", "stage_c")


def chosen(purposes: Sequence[str], small: bool, bf16: bool) -> list[Released]:
    """The entries that these purposes need, each once. Raises ValueError for what is neither."""
    found: dict[str, Released] = {}
    for purpose in purposes:
        of_set = table()["sets"].get(purpose)
        entries = of_experiment(purpose) if of_set is None else members(of_set, small, bf16)
        if purpose == "inference":
            entries += [entry for entry in released().values() if entry.is_encoder]
        found |= {entry.place: entry for entry in entries}
    return list(found.values())


def members(names: Sequence[str], small: bool, bf16: bool) -> list[Released]:
    """The files of a set; of Stage B and Stage C the large ones in fp32 unless told otherwise."""
    endings = ("_lite" if small else "") + ("_bf16" if bf16 else "")
    files = [name + (endings if name in STAGES_IN_TWO_SIZES else "") for name in names]
    return [released()[f"models/{file}.safetensors"] for file in files]


def of_experiment(name: str) -> list[Released]:
    """The entries whose place stands anywhere in an experiment's settings."""
    command = [sys.executable, "-m", "train", "--cfg", "job", "data.shards=none", f"experiment={name}"]
    around = {**os.environ, "PYTHONUTF8": "1"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, encoding="utf-8", env=around)
    if done.returncode:
        reason = one_line(done.stderr.strip().removeprefix("error: "))
        known = table()["sets"]
        raise ValueError(f"--for {name}: neither a set ({', '.join(known)}) nor an experiment ({reason})")
    named = [value for value in texts(yaml.safe_load(done.stdout)) if value in released()]
    return [released()[place] for place in dict.fromkeys(named)]


def texts(plain: Any) -> Iterator[str]:
    """All texts in nested settings."""
    if isinstance(plain, str):
        yield plain
    elif isinstance(plain, dict | list):
        for inner in plain.values() if isinstance(plain, dict) else plain:
            yield from texts(inner)


def by_name(name: str) -> Released:
    """The entry of that place or file name; ValueError names the nearest."""
    known = {Path(place).name: entry for place, entry in released().items()} | released()
    if name not in known:
        raise ValueError(f"{name}: not in the table; {nearest(name, known)}")
    return known[name]
