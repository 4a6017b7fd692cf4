"""Where metrics and sample sheets go. One tracker per file, which is its name; none of them ever stops a run.

To add one, write a file into this folder with one subclass of Tracker, a dataclass whose fields are its
settings, and `configs/tracker/mine.yaml` with the line `mine: true`: `tracker=[csv,mine]` then chooses it.
docs/extend/tracker.md shows one.
"""

import inspect
import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from PIL.Image import Image

from modules.by_file import classes_by_file
from modules.schema import ConfigError, from_plain, nearest
from train.reports.trackers.base import RunFacts, Tracker

__all__ = ["TRACKERS", "RunFacts", "Tracker", "Trackers", "chosen"]


def is_tracker(kind: type) -> bool:
    """Whether a class is one, and not what trackers are made of."""
    return issubclass(kind, Tracker) and not inspect.isabstract(kind)


TRACKERS: dict[str, type[Tracker]] = classes_by_file(__name__, __path__, is_tracker)


def chosen(settings: Mapping[str, Any]) -> dict[str, Tracker]:
    """The trackers of `settings`, not started: name -> true, its own settings, or (not wanted) false or null.

    Raises ConfigError for a name that no tracker has, and for settings that it does not have.
    """
    made = {}
    for name, own in settings.items():
        if name not in TRACKERS:
            raise ConfigError(f"tracker.{name}: no tracker is called so; {nearest(name, TRACKERS)}")
        if own is not None and own is not False:
            made[name] = from_plain(TRACKERS[name], {} if own is True else own, f"tracker.{name}")
    return made


class Trackers:
    """All trackers of a run. One that fails is named in a single warning and left out from then on."""

    def __init__(self, trackers: Mapping[str, Tracker], run: RunFacts, warn: Callable[[str], None]) -> None:
        self.warn, self.active = warn, dict(trackers)
        self._all(lambda tracker: tracker.start(run))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Metrics after `step` steps; those that are not finite are left out."""
        finite = {name: value for name, value in values.items() if math.isfinite(value)}
        self._all(lambda tracker: tracker.scalars(step, finite))

    def picture(self, step: int, name: str, image: Image) -> None:
        """A picture after `step` steps."""
        self._all(lambda tracker: tracker.picture(step, name, image))

    def close(self) -> None:
        """Let all write what they still hold."""
        self._all(lambda tracker: tracker.close())

    def _all(self, call: Callable[[Tracker], None]) -> None:
        for name, tracker in list(self.active.items()):
            self._try(name, partial(call, tracker))

    def _try(self, name: str, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception as error:  # any error at all: a run must not end because of its diary
            self.active.pop(name, None)
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            self.warn(f"tracker {name} failed and is left out from now on: {reason}")
