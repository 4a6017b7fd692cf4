"""What a tracker is: where a run's numbers and pictures go."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from PIL.Image import Image


class RunFacts(NamedTuple):
    """What a tracker may want to know of the run that it follows."""

    folder: Path
    name: str  # of the experiment
    run_id: str  # one for the run's whole life, however often it is stopped and goes on
    step: int  # at which the run starts or goes on: later ones that were told before are told again
    settings: Mapping[str, Any]  # all of the run's, as plain data


@dataclass
class Tracker(ABC):
    """Base of the trackers. Subclasses are dataclasses whose fields are the settings.

    Whatever a method raises costs the run a warning, and the tracker its place. Only the first process of a
    run has trackers.
    """

    @abstractmethod
    def start(self, run: RunFacts) -> None:
        """Open what is written to, and forget what was told after `run.step`."""

    @abstractmethod
    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Metrics after `step` steps, all finite."""

    def picture(self, step: int, name: str, image: Image) -> None:
        """A picture after `step` steps. Trackers without a place for pictures leave this out."""
        return

    def close(self) -> None:
        """Write what is still in memory."""
        return
