"""Signs of life between the ranks: one that dies, hangs or fails ends all of them, with its reason.

Every rank counts up its own number in the store of the process group, from a thread, so that it does so too
while the training waits for others. The first rank watches all, the others watch the first: a few requests
per rank and turn, however many ranks there are. Ranks of one machine also look after each other's processes,
which tells a death within a turn. Whoever finds a rank dead, or fails, leaves the reason in the store; all
read it there, say it once per machine, and end.
"""

import json
import os
import sys
import threading
import time
from contextlib import suppress
from dataclasses import asdict
from datetime import timedelta

import torch.distributed as dist

from train.parallel.process import Process

FAILURE = 1  # exit status
LOOKS = 10  # turns without a sign of life after which a rank counts as dead
SLOWEST_TURN_S = 3.0
GRACE_S = 12.0  # for the training to end by itself once the reason is known: it may be stuck for ever
REASON, LEFT, HEARD = "reason", "left", "heard"  # keys of the store
GO_ON = "; the same command goes on from the newest checkpoint"


class Heartbeat:
    """This rank's sign of life and its view of the others'. store: of the process group; on all ranks."""

    def __init__(self, store: dist.Store, rank: int, size: int, dead_after_s: float) -> None:
        # A connection of its own: the group's may be waiting for something.
        self.store = dist.PrefixStore("heartbeat", store.clone())
        self.rank, self.size, self.dead_after_s = rank, size, dead_after_s
        self.turn_s = min(SLOWEST_TURN_S, dead_after_s / LOOKS)
        self.processes = self._introduce()
        self.store.set_timeout(timedelta(seconds=dead_after_s))
        self.machine = self.processes[rank].machine
        self.neighbours = [p for p in self.processes if p.machine == self.machine and p.rank != rank]
        self.watched = range(1, size) if rank == 0 else range(1)
        self.beats = [0] * size
        self.silent_s = [0.0] * size
        self.is_known = threading.Event()  # that all must end, and why
        self.is_said = False  # on this machine, why all must end
        self.has_left = threading.Event()
        threading.Thread(target=self._run, name="heartbeat", daemon=True).start()

    def fail(self, reason: str) -> None:
        """Leave the reason of this rank's failure to the others, unless one of them failed before."""
        if self.is_known.is_set():
            return
        with suppress(RuntimeError):  # the store is gone: the others know that by themselves
            self._agree(f"{self.processes[self.rank]} failed: {' '.join(reason.split())}")

    def may_speak(self) -> bool:
        """Whether this rank is the one of its machine that says how the run ended."""
        try:
            return self.store.add(f"told/{self.machine}", 1) == 1
        except RuntimeError:  # nobody to ask
            return not self.is_said

    def is_others_fault(self, error: BaseException) -> bool:
        """Whether `error` follows from another rank's end, which takes up to `dead_after_s` to find out."""
        return speaks_of_others(error) and self.is_known.wait(self.dead_after_s + 2 * self.turn_s)

    def leave(self) -> bool:
        """Leave in good order, the first rank as the last one, for it may host the store.

        Returns False if a rank failed meanwhile.
        """
        everyone = [f"{LEFT}/{rank}" for rank in range(self.size)]
        with suppress(RuntimeError):
            self.store.set(everyone[self.rank], "")
            while self.rank == 0 and not self.store.check(everyone) and not self.is_known.wait(0.05):
                pass
        self.has_left.set()
        return not self.is_known.is_set()

    def let_others_hear(self) -> None:
        """After a failure: the first rank, which may host the store, stays until the others know the reason.

        Not for long, and not for those that are gone.
        """
        end = time.monotonic() + GRACE_S / 2
        with suppress(RuntimeError):  # the store is gone
            self.store.set(f"{HEARD}/{self.rank}", "")
            while self.rank == 0 and not self.store.check(self._to_hear()) and time.monotonic() < end:
                time.sleep(0.05)

    def _to_hear(self) -> list[str]:
        gone = {process.rank for process in self.neighbours if process.is_gone()}
        return [f"{HEARD}/{rank}" for rank in range(self.size) if rank not in gone]

    def _introduce(self) -> list[Process]:
        keys = [f"process/{rank}" for rank in range(self.size)]
        self.store.set(keys[self.rank], json.dumps(asdict(Process.own(self.rank))))
        return [Process(**json.loads(text)) for text in self.store.multi_get(keys)]

    def _run(self) -> None:
        reason = ""
        while not reason and not self.has_left.wait(self.turn_s):
            try:
                reason = self._look()
            except RuntimeError:  # of the store
                reason = (self._dead_neighbour() or self._lost_store()) + GO_ON
        if not self.has_left.is_set():
            self._end(reason)

    def _look(self) -> str:
        """One turn; returns why all must end, or nothing."""
        self.store.add(f"beats/{self.rank}", 1)
        # In this order: a rank that fails leaves its reason before its process ends.
        found = self._silent() or self._dead_neighbour()
        if self.store.check([REASON]):
            return self.store.get(REASON).decode()
        return self._agree(found + GO_ON) if found else ""

    def _agree(self, reason: str) -> str:
        """What all ranks say: the reason that came first."""
        return self.store.compare_set(REASON, "", reason).decode()

    def _silent(self) -> str:
        for rank in self.watched:
            beats = self.store.add(f"beats/{rank}", 0)
            # Turns of this rank, not the clock: after a sleep of the machine nobody is late.
            self.silent_s[rank] = 0.0 if beats != self.beats[rank] else self.silent_s[rank] + self.turn_s
            self.beats[rank] = beats
            if self.silent_s[rank] > self.dead_after_s and not self._left(rank):
                return (
                    f"{self.processes[rank]} gave no sign of life for {self.dead_after_s:g} s:"
                    " it hangs, was stopped, or its machine is gone"
                )
        return ""

    def _dead_neighbour(self) -> str:
        for process in self.neighbours:
            if process.is_gone() and not self._left(process.rank):
                return (
                    f"{process} died: its process {process.number} ended without a word"
                    " (killed, perhaps for lack of memory)"
                )
        return ""

    def _left(self, rank: int) -> bool:
        with suppress(RuntimeError):
            return self.store.check([f"{LEFT}/{rank}"])
        return False

    def _lost_store(self) -> str:
        first = self.processes[0]
        host = f"torchrun beside {first}" if os.environ.get("TORCHELASTIC_RUN_ID") else str(first)
        return f"{host} died or its machine is gone: the store of all ranks does not answer"

    def _end(self, reason: str) -> None:
        is_own = reason.startswith(f"{self.processes[self.rank]} failed")  # said by the training itself
        if not is_own:
            if self.may_speak():
                print(f"error: {reason}", file=sys.stderr)
            self.is_said = True
            with suppress(RuntimeError):
                self.store.set(f"{HEARD}/{self.rank}", "")
        self.is_known.set()
        time.sleep(GRACE_S)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(FAILURE)


def speaks_of_others(error: BaseException | None) -> bool:
    """Whether an error, or one that it was made of, is about the connection to other ranks."""
    if error is None:
        return False
    text = str(error).lower()
    is_theirs = isinstance(error, dist.DistError) or "gloo" in text or "nccl" in text
    return is_theirs or speaks_of_others(error.__cause__ or error.__context__)
