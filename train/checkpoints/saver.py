"""Saves while training goes on: training waits for a copy in memory, a thread does the rest."""

import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from threading import Thread
from typing import Any, NamedTuple

from modules.whole_files import write_whole
from train.checkpoints.export import export
from train.checkpoints.files import facts_of
from train.checkpoints.folders import CheckpointError, Checkpoints
from train.checkpoints.shards import write_pieces
from train.checkpoints.staging import Snapshot, Staging
from train.parallel.agreement import all_of, decide
from train.state import TrainingState, rank_stem, read_state

CLOSE_S = 30.0  # how long a run that ends with an error waits for a save that is under way
REMEDY = "make room and start the same command again"
_numbers = count()  # of saves in this process, the same on all ranks


class Saved(NamedTuple):
    """How long a save took."""

    step: int
    pause_s: float  # training stood still
    seconds: float  # from the beginning until everything was on the disk


class Saver:
    """Writes checkpoints of a run in the background, one at a time; called by all ranks together.

    weights: where the networks are exported to, as plain files. An error in the background is raised by the
    next call, on all ranks, as CheckpointError.
    """

    def __init__(
        self,
        checkpoints: Checkpoints,
        state: TrainingState,
        weights: Path,
        note: Callable[[str], None],
    ) -> None:
        self.checkpoints, self.state, self.weights, self.note = checkpoints, state, weights, note
        self.world = state.world
        self.staging = Staging(state.world)
        self._thread: Thread | None = None
        self._problem = ""
        self._paused_s, self._save_s = 0.0, 0.0  # since the last report; of the newest save

    def save(self, *, exports: bool) -> None:
        """Copy the state, and let it be written. Waits for the save before, should it still be under way."""
        began = time.monotonic()
        self.wait()
        snapshot = self.state.snapshot(self.staging, exports)
        self._began, self._pause_s = began, time.monotonic() - began
        self._paused_s += self._pause_s
        self._step = snapshot.step
        topic = f"checkpoint/{next(_numbers)}"
        self._thread = Thread(target=self._work, args=(snapshot, topic, exports), name="checkpoint")
        self._thread.start()

    def poll(self) -> Saved | None:
        """The save that has ended since the last call, if any; the same on all ranks."""
        if self._thread is None or not all_of(not self._thread.is_alive()):
            return None
        return self.wait()

    def wait(self) -> Saved | None:
        """Wait for the save that is under way. Raises CheckpointError if it has failed."""
        if self._thread is None:
            return None
        self._thread.join()
        self._thread = None
        if self._problem:
            raise CheckpointError(self._problem)
        done = Saved(self._step, self._pause_s, self._ended - self._began)
        self._save_s = done.seconds
        self.note(
            f"checkpoint {self.checkpoints.path(done.step).name}: written in {done.seconds:.2f} s,"
            f" training paused for {done.pause_s:.2f} s"
        )
        return done

    def timings(self) -> dict[str, float]:
        """For a report: how long training stood still since the last one, how long the newest save took."""
        paused_s, self._paused_s = self._paused_s, 0.0
        return {"checkpoint_pause_s": paused_s, "checkpoint_save_s": self._save_s}

    def close(self) -> None:
        """Let a save finish when the run ends with an error; only for a while: other ranks may be gone."""
        if self._thread is not None:
            self._thread.join(CLOSE_S)
            if self._problem:
                self.note(self._problem)

    def _work(self, snapshot: Snapshot, topic: str, exports: bool) -> None:
        """In the thread of every rank: write and hash its own files; the first rank does the rest."""
        try:
            report: dict[str, Any] = {"files": self._write(snapshot)}
        except Exception as error:  # whatever it is, the other ranks wait to be told
            report = {"error": f"{type(error).__name__}: {error}"}

        def decision(reports: list[dict[str, Any]]) -> str:
            return self._finish(snapshot.step, reports, exports)

        try:
            self._problem = decide(topic, report, decision)
        except Exception as error:  # the first rank is gone, and its store with it
            self._problem = f"{self._what(snapshot.step)}: not written: {type(error).__name__}: {error}"
        self._ended = time.monotonic()

    def _write(self, snapshot: Snapshot) -> dict[str, dict[str, int | str]]:
        folder = self.checkpoints.unfinished(snapshot.step)
        folder.mkdir(parents=True, exist_ok=True)
        shard = f"{rank_stem(self.world.rank)}.safetensors"
        write_pieces(folder / shard, snapshot.pieces)
        for name, text in snapshot.texts.items():
            write_whole(folder / name, text)
        return {name: facts_of(folder / name) for name in (shard, *snapshot.texts)}

    def _finish(self, step: int, reports: list[dict[str, Any]], exports: bool) -> str:
        """On the first rank, when all ranks have written: "" or what went wrong."""
        try:
            for rank, report in enumerate(reports):
                if "error" in report:
                    raise CheckpointError(f"rank {rank}: {report['error']}")
            files = {name: facts for report in reports for name, facts in report["files"].items()}
            path = self.checkpoints.commit(step, files)
        except Exception as error:  # raised again on all ranks, by the thread that trains
            self.checkpoints.discard(step)
            return f"{self._what(step)}: not written: {error}; {self._last_good()}; {REMEDY}"
        try:
            self.checkpoints.prune()
        except Exception as error:  # as above
            return f"{path}: written, but older ones cannot be removed: {error}; {REMEDY}"
        return self._export(path, step) if exports else ""

    def _last_good(self) -> str:
        try:
            good = self.checkpoints.usable()
        except OSError as error:  # the disk is gone
            return f"what was written before cannot be read: {error}"
        return f"the last good one is {good[0].name}" if good else "there is no good one yet"

    def _export(self, path: Path, step: int) -> str:
        try:
            export(path, read_state(path).networks, step, self.weights)
        except Exception as error:  # as above
            return f"{self.weights}: not exported from {path.name}, which is whole: {error}; {REMEDY}"
        return ""

    def _what(self, step: int) -> str:
        return str(self.checkpoints.path(step))
