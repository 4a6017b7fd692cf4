"""Short trainings that get a signal at chosen moments: signal_worker.py FOLDER SETTINGS.json PORT.

Writes what each says to CASE_RANK.txt, and statuses.json.
"""

import json
import os
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from tests.integration.launching import fork, status_of
from train import loop
from train.config import config_from_plain
from train.hooks import Save, Sheets
from train.parallel import heartbeat
from train.recipes.previewer import PreviewerRecipe
from train.state import TrainingState

heartbeat.GRACE_S = 1.0
STEP = (PreviewerRecipe, "after_step", 3)
CASES: dict[
    str, tuple[tuple[type, str, int], tuple[int, ...]]
] = {  # at which call, and what the last rank gets
    "ready": ((TrainingState, "__init__", 1), (signal.SIGTERM,)),
    "step": (STEP, (signal.SIGTERM,)),
    "int": (STEP, (signal.SIGINT,)),
    "usr1": (STEP, (signal.SIGUSR1,)),
    "both": (STEP, (signal.SIGUSR1, signal.SIGTERM)),
    "twice": (STEP, (signal.SIGTERM, signal.SIGTERM)),
    "sheet": ((Sheets, "draw", 1), (signal.SIGTERM,)),
    "saving": ((Save, "__call__", 4), (signal.SIGTERM,)),
    "one_of_two": (STEP, (signal.SIGTERM,)),
}


def train(settings: dict[str, Any], case: str, folder: Path, is_asked: bool) -> int:
    settings["run"]["dir"] = str(folder / case)
    (place, name, at_call), signals = CASES[case]
    if is_asked:
        setattr(place, name, interrupted(getattr(place, name), signals, at_call))
    loop.run(config_from_plain(settings))
    return 0


def interrupted(function: Callable, signals: tuple[int, ...], at_call: int) -> Callable:
    """The function, which gets signals on its n-th call."""
    calls = 0

    def wrapped(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == at_call:
            for number in signals:
                os.kill(os.getpid(), number)
        return function(*arguments, **named)

    return wrapped


def main(folder: Path, settings: dict[str, Any], port: int) -> None:
    children = {}
    for case in CASES:
        size = 2 if case == "one_of_two" else 1
        for rank in range(size):
            life = partial(train, settings, case, folder, rank == size - 1)
            place = (rank, size, port) if size > 1 else None
            children[f"{case}_{rank}"] = fork(life, folder / f"{case}_{rank}.txt", place)
    (folder / "statuses.json").write_text(
        json.dumps({name: status_of(child) for name, child in children.items()})
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text()), int(sys.argv[3]))
