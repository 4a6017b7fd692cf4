"""Jobs for the one worker, and the line in which they wait."""

import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from queue import Empty, SimpleQueue

from inference.app.events import Done, Event, Waiting
from inference.app.words import Refused, Stopped, in_words

PULSE_S = 2.0  # a follower hears something at least so often: only then it can be seen that it has gone


class Job:
    """Work that tells of itself, and can be stopped. owner: who it is done for."""

    def __init__(self, work: Callable[["Job"], None], owner: str) -> None:
        self.owner = owner
        self._work = work
        self._told: SimpleQueue[Event | Exception] = SimpleQueue()
        self._stopped = threading.Event()

    def tell(self, event: Event | Exception) -> None:
        """Let the follower know; an exception is the end."""
        self._told.put(event)

    def stop(self) -> None:
        """Ask it to end at its next check."""
        self._stopped.set()

    def check(self) -> None:
        """Raise Stopped when it is to end."""
        if self._stopped.is_set():
            raise Stopped

    def run(self) -> None:
        """Do the work; whatever it ends with, the follower is told."""
        try:
            self.check()
            self._work(self)
        except Exception as error:
            self.tell(in_words(error))

    def events(self) -> Iterator[Event]:
        """What it tells, up to Done; of several that have come up meanwhile the last. Raises its failure.

        Once it has told anything, that is said again whenever nothing new has come for PULSE_S seconds.
        """
        event = self._told.get()
        while True:
            while not isinstance(event, Done | Exception):
                try:
                    newer = self._told.get_nowait()
                except Empty:
                    break
                event = newer
            if isinstance(event, Exception):
                raise event
            yield event
            if isinstance(event, Done):
                return
            with suppress(Empty):
                event = self._told.get(timeout=PULSE_S)


class Line:
    """Jobs in the order in which they came. length: how many may wait."""

    def __init__(self, length: int) -> None:
        self.length = length
        self._waiting: list[Job] = []
        self._current: Job | None = None
        self._closed = False
        self._changed = threading.Condition()

    def join(self, job: Job) -> None:
        """Stand at the end; Refused when the line is full, Stopped when it is closed."""
        with self._changed:
            if self._closed:
                raise Stopped
            if len(self._waiting) >= self.length:
                raise Refused(f"{self.length} others are waiting already; try again in a while")
            self._waiting.append(job)
            self._tell_places()
            self._changed.notify()

    def next(self) -> Job | None:
        """The first job, as soon as there is one; None once the line is closed."""
        with self._changed:
            self._current = None
            self._changed.wait_for(lambda: self._waiting or self._closed)
            if self._closed:
                return None
            self._current = self._waiting.pop(0)
            self._tell_places()
            return self._current

    def leave(self, job: Job) -> None:
        """Nobody follows this job any more: it makes room for others at once, or ends at its next check."""
        job.stop()
        with self._changed:
            if job in self._waiting:
                self._waiting.remove(job)
                self._tell_places()

    def cancel(self, owner: str) -> None:
        """Stop the owner's job, and take those that wait out of the line."""
        with self._changed:
            for job in [job for job in self._waiting if job.owner == owner]:
                self._waiting.remove(job)
                job.tell(Stopped())
            if self._current is not None and self._current.owner == owner:
                self._current.stop()
            self._tell_places()

    def close(self) -> None:
        """Stop everything; the worker gets no more jobs."""
        with self._changed:
            self._closed = True
            for job in self._waiting:
                job.tell(Stopped())
            if self._current is not None:
                self._current.stop()
            self._changed.notify()

    def _tell_places(self) -> None:
        for place, job in enumerate(self._waiting):
            job.tell(Waiting(place + (self._current is not None)))
