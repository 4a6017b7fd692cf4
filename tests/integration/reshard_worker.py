"""Ranks of any number on the same state: reshard_worker.py FOLDER PORT reads settings.json there.

Two ranks train and save. Then, for every case at once, its ranks read that checkpoint, write it again, and
take one step more. They are forked after torch is loaded, which takes longer than all they do.
"""

import json
import shutil
import sys
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

from tests.integration.launching import fork, status_of
from train.config import config_from_plain
from train.interrupts import stop_requests
from train.loop import run, train
from train.parallel.world import join
from train.recipes import make_recipe
from train.session import make_session

SAVED_STEP, GLOBAL_BATCH = 2, 12
CASES = {  # name: ranks, parallel.mode, devices that share a network in hsdp
    "same": (2, "fsdp"),
    "one": (1, "single"),
    "three": (3, "fsdp"),
    "four": (4, "hsdp"),
    "ddp": (2, "ddp"),
}


def settings(plain: dict[str, Any], folder: Path, case: str) -> dict[str, Any]:
    size, mode = CASES[case]
    changed = deepcopy(plain)
    changed["run"]["dir"] = str(folder / case)
    changed["data"]["batch_size"] = GLOBAL_BATCH // size
    changed["parallel"] = {"mode": mode} | ({"shard_size": 2} if mode == "hsdp" else {})
    return changed


def save(plain: dict[str, Any], folder: Path) -> int:
    changed = settings(plain, folder, "same")
    changed["run"] |= {"num_steps": SAVED_STEP, "dir": str(folder / "saved")}
    run(config_from_plain(changed))
    return 0


def go_on(plain: dict[str, Any], folder: Path, case: str) -> int:
    config = config_from_plain(settings(plain, folder, case))
    with stop_requests() as stop:
        session = make_session(config, make_recipe(config), join("cpu", config.parallel))
        session.saver.save(exports=False)
        session.saver.wait()
        train(session, stop)
    return 0


def main(folder: Path, port: int) -> None:
    plain = json.loads((folder / "settings.json").read_text())
    ranks = [fork(partial(save, plain, folder), folder / "saved.txt", (rank, 2, port)) for rank in range(2)]
    assert [status_of(child) for child in ranks] == [0, 0], (folder / "saved.txt").read_text()
    children = {}
    for index, (case, (size, _)) in enumerate(CASES.items(), 1):
        shutil.copytree(folder / "saved", folder / case)
        for rank in range(size):
            place = (rank, size, port + index)
            children[fork(partial(go_on, plain, folder, case), folder / f"{case}.txt", place)] = case
    for child, case in children.items():
        assert status_of(child) == 0, f"{case}: {(folder / f'{case}.txt').read_text()}"


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
