"""Runs whose files can suddenly grow no more: full_disk_worker.py FOLDER PORT SETTINGS.json.

Two ranks, the second of which is stopped by a limit; and, where one may be mounted, a full file system.
Writes what each says to limit_RANK.txt and disk_0.txt, and statuses.json.
"""

import ctypes
import json
import os
import resource
import sys
from functools import partial
from pathlib import Path
from typing import Any

from modules.processes import place
from tests.integration.conftest import ColourRecipe
from tests.integration.launching import fork, status_of
from train.__main__ import FAILURE, say
from train.checkpoints.folders import CheckpointError
from train.config import config_from_plain
from train.loop import run

FULL_AFTER = 3  # steps: a save after it is whole, the one after FULL_AFTER + 1 is not
MOST_BYTES = 2048  # less than the shards of a rank
DISK_BYTES, LEFT_BYTES = 1 << 20, 8192


class Filling(ColourRecipe):
    """Fills the disk, or comes to a limit, after some steps."""

    def __init__(self, disk: Path | None) -> None:
        super().__init__()
        self.disk = disk

    def after_step(self, step: int) -> None:
        super().after_step(step)
        if step + 1 == FULL_AFTER and self.disk:
            fill(self.disk)
        elif step + 1 == FULL_AFTER and place().rank == 1:
            resource.setrlimit(resource.RLIMIT_FSIZE, (MOST_BYTES, MOST_BYTES))


def fill(disk: Path) -> None:
    left = os.statvfs(disk)
    (disk / "filler").write_bytes(bytes(left.f_bavail * left.f_frsize - LEFT_BYTES))


def live(plain: dict[str, Any], folder: Path, disk: Path | None) -> int:
    plain["run"]["dir"] = str(folder / "run")
    try:
        run(config_from_plain(plain), Filling(disk))
    except CheckpointError as error:
        return say(error, FAILURE)
    return 0


def mount(disk: Path) -> bool:
    """Mount a small file system; whether this process may."""
    disk.mkdir()
    libc = ctypes.CDLL(None, use_errno=True)
    return libc.mount(b"none", bytes(disk), b"tmpfs", 0, f"size={DISK_BYTES}".encode()) == 0


def main(folder: Path, port: int, plain: dict[str, Any]) -> None:
    statuses = {}
    words = [folder / f"limit_{rank}.txt" for rank in range(2)]
    plain["parallel"] = {"mode": "ddp"}
    ranks = [fork(partial(live, plain, folder, None), words[rank], (rank, 2, port)) for rank in range(2)]
    statuses["limit"] = [status_of(child) for child in ranks]
    disk = folder / "disk"
    if mount(disk):
        statuses["disk"] = [status_of(fork(partial(live, plain, disk, disk), folder / "disk_0.txt"))]
    (folder / "statuses.json").write_text(json.dumps(statuses))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), json.loads(Path(sys.argv[3]).read_text()))
