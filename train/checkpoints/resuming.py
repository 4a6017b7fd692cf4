"""Goes on from the newest checkpoint that is whole."""

import logging
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from dataset_tools.stream import Stream
from modules.schema import one_line
from train.checkpoints.export import export, is_exported, remove_unfinished
from train.checkpoints.folders import LATEST, CheckpointError, Checkpoints, damage, step_of
from train.parallel.ranks import gather
from train.parallel.world import World
from train.state import TrainingState, read_position, read_state

log = logging.getLogger(__name__)


class Resumed(NamedTuple):
    """Which checkpoint a run goes on from, and how long it took to check and read it."""

    path: Path
    seconds: float
    is_newest: bool  # no damaged one is newer


def resume_data(checkpoints: Checkpoints, stream: Stream, world: World) -> Resumed | None:
    """Find the newest checkpoint that is whole, on all ranks the same, and take back its data position; None
    where there is none at all. The rest of it is taken back by `resume`, when there is something to take it.

    Each rank checks its share of the files. A damaged checkpoint that has one before it is told of in one
    line, and that one is used. Raises CheckpointError, on all ranks, if all are damaged.

    One that is whole by its manifest and yet does not fit is an error: it is of another run, other settings
    or another version, and to go back without a word would give up work that may be worth a change of these.
    """
    began = time.monotonic()
    paths: list[Path] = gather(checkpoints.usable() if world.is_first else [])[0]
    for path in paths:
        problem = _first(damage(path, world.rank, world.size))
        if problem is None:
            _on_all_ranks(partial(read_position, path, stream, world))
            return Resumed(path, time.monotonic() - began, path == paths[0])
        if world.is_first and path != paths[-1]:
            log.warning("%s; going back to the checkpoint before it", one_line(problem))
    if paths:
        raise CheckpointError(
            f"{checkpoints.folder}: none of its {len(paths)} checkpoints is whole ({problem}); restore"
            f" one, or remove {checkpoints.folder / LATEST} to start anew"
        )
    return None


def resume(found: Resumed, checkpoints: Checkpoints, state: TrainingState) -> Resumed:
    """Take back all but the data position, on all ranks. Raises CheckpointError if it does not fit."""
    began = time.monotonic()
    _on_all_ranks(partial(state.read, found.path))
    if state.world.is_first and found.is_newest:  # a damaged newest may count as one of those that stay
        checkpoints.prune()  # the run may have been killed before it did
    return found._replace(seconds=found.seconds + time.monotonic() - began)


def export_again(resumed: Resumed, out: Path) -> None:
    """Export the networks if a run was killed between its checkpoint and that; on the first rank."""
    remove_unfinished(out)
    state, step = read_state(resumed.path), step_of(resumed.path)
    if state.exports and not is_exported(resumed.path, state.networks, step, out):
        export(resumed.path, state.networks, step, out)


def _on_all_ranks(read: Callable[[], None]) -> None:
    """Read, and fail on all ranks if one of them does."""
    problem = None
    try:
        read()
    except (ValueError, OSError) as error:
        problem = str(error)
    if (problem := _first(problem)) is not None:
        raise CheckpointError(problem)


def _first(problem: str | None) -> str | None:
    """The first problem that any rank has; all ranks must call."""
    return next((found for found in gather(problem) if found is not None), None)
