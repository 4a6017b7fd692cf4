"""The engine of the page: one worker that draws, wishes in a line, previews, and an end at any step.

It knows nothing of gradio.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any

from inference.app.events import Done, Drawing, Event, Reading
from inference.app.jobs import Job, Line
from inference.app.previews import Previews
from inference.app.shelf import Shelf
from inference.app.timing import Timing
from inference.pipeline import Cascade
from inference.prepare import RELEASED_SIZE_PX
from inference.progress import Step
from inference.settings import Request, StageSettings
from inference.tasks import TASKS


class Studio:
    """Draws wishes one after the other, in a thread of its own; the networks belong to that thread."""

    def __init__(self, cascade: Cascade, shelf: Shelf, queue_length: int) -> None:
        self.cascade, self.shelf = cascade, shelf
        self.line = Line(queue_length)
        self.timing = Timing()
        self._ready = False
        self._worker = threading.Thread(target=self._work, name="studio", daemon=True)

    @cached_property
    def has_previewer(self) -> bool:
        """Whether previews can be shown."""
        try:
            self.cascade.networks.check(["previewer"])
        except (FileNotFoundError, ValueError):
            return False
        return True

    @cached_property
    def can_vary(self) -> bool:
        """Whether Stage C has learned with an image encoder, which is here."""
        try:
            self.cascade.networks.check(["image_encoder"])
        except (FileNotFoundError, ValueError):
            return False
        return True

    @property
    def own_side_px(self) -> int:
        """Of the square pictures that Stage C learned from."""
        return self.cascade.networks.facts("stage_c").get("image_size_px", RELEASED_SIZE_PX)

    def sampling(self, stage: str) -> tuple[int, float]:
        """Steps and guidance that a stage is best sampled with; of guidance that changes the first."""
        settings = self.cascade.networks.sampling(stage, StageSettings())
        guidance = settings.guidance
        return settings.steps, float(guidance[0] if isinstance(guidance, tuple | list) else guidance)

    def start(self) -> None:
        """Begin to work: first the networks are read, so that nobody's first picture waits for them."""
        self.line.join(Job(self._read_networks, owner=""))
        self._worker.start()

    def close(self) -> None:
        """Stop what is being drawn, and the worker."""
        self.line.close()
        if self._worker.is_alive():
            self._worker.join(10)

    def draw(self, requests: Sequence[Request], owner: str) -> Iterator[Event]:
        """Make pictures of one wish, which agree in all but their seeds; yields what is going on.

        The last event is Done. owner: of the wish, for `cancel`. Raises Refused with what a visitor is to be
        told, Stopped when it was cancelled. Left early, the drawing stops.
        """
        job = Job(lambda job: self._draw(requests, job), owner)
        yield from self._follow(job)

    def ask(self, question: Callable[[], Any], owner: str) -> Any:
        """The answer of a function that uses the networks, which waits its turn. Raises as `draw`."""
        job = Job(lambda job: job.tell(Done((), question())), owner)
        events = list(self._follow(job))
        return events[-1].answer  # type: ignore[union-attr]

    def cancel(self, owner: str) -> None:
        """Stop what this owner waits for, within a step."""
        if owner:
            self.line.cancel(owner)

    def _follow(self, job: Job) -> Iterator[Event]:
        self.line.join(job)
        try:
            yield from job.events()
        finally:
            self.line.leave(job)

    def _work(self) -> None:
        while (job := self.line.next()) is not None:
            job.run()

    def _read_networks(self, job: Job) -> None:
        """Once: before the first wish, or while nobody wishes anything."""
        if self._ready:
            return
        job.tell(Reading())
        networks = self.cascade.networks
        for name in (*TASKS["text_to_image"].networks, *(["previewer"] if self.has_previewer else [])):
            networks.peek(name)
            job.check()
        for stage in ("stage_c", "stage_b"):
            networks.peek_encoder("text_encoder", stage)
        self._ready = True

    def _draw(self, requests: Sequence[Request], job: Job) -> None:
        self._read_networks(job)
        batches = self.cascade.batches(requests, len(requests))
        first = batches[0][0]
        steps = {name: getattr(first, name).steps for name in ("stage_c", "stage_b")}
        clock = self.timing.start(steps, first.size.height * first.size.width * len(requests))
        previews = Previews(self.cascade.stages) if self.has_previewer else None

        def on_step(step: Step) -> None:
            job.check()
            left = clock.step(step.stage, step.step, step.steps)
            shown = previews and step.stage == "stage_c" and previews.of(step)
            job.tell(Drawing(step.stage, step.step, step.steps, clock.share, left, shown or None))

        job.tell(Drawing("stage_c", 0, steps["stage_c"], 0.0, None, None))
        job.check()
        pictures = list(self.cascade.run(batches, on_step))
        job.check()
        job.tell(Done(tuple(self.shelf.put(picture) for picture in pictures)))
