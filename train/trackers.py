"""Where metrics and sample sheets go: CSV, TensorBoard, Weights & Biases. None of them ever stops a run."""

import csv
import math
import os
import uuid
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL.Image import Image

from train.config import Config, WandbConfig


class Tracker(Protocol):
    """Takes in a run's numbers and pictures."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Metrics after `step` steps."""

    def picture(self, step: int, name: str, image: Image) -> None:
        """A picture after `step` steps."""

    def close(self) -> None:
        """Write what is still in memory."""


class CsvTracker:
    """metrics.csv: one row per report; of a run that goes on after `step`, later rows are dropped."""

    def __init__(self, path: Path, step: int) -> None:
        self.path = path
        self.columns = ["step"]
        if path.exists():
            with path.open(newline="") as file:
                rows = [row for row in csv.DictReader(file) if int(row["step"]) <= step]
            self.columns = list(rows[0]) if rows else self.columns
            self._rewrite(rows)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        new = [name for name in values if name not in self.columns]
        if new:  # a metric that was not there before: the header must be written again
            rows = []
            if self.path.exists():
                with self.path.open(newline="") as file:
                    rows = list(csv.DictReader(file))
            self.columns += new
            self._rewrite(rows)
        with self.path.open("a", newline="") as file:
            csv.DictWriter(file, self.columns, restval="").writerow({"step": step, **values})

    def picture(self, step: int, name: str, image: Image) -> None:
        """Pictures have no place in a table."""

    def close(self) -> None:
        """Every row is written at once."""

    def _rewrite(self, rows: list[dict[str, Any]]) -> None:
        unfinished = self.path.with_name(f".{self.path.name}.unfinished")
        with unfinished.open("w", newline="") as file:
            writer = csv.DictWriter(file, self.columns, restval="")
            writer.writeheader()
            writer.writerows(rows)
        os.replace(unfinished, self.path)


class TensorBoardTracker:
    """<run>/tensorboard, for `tensorboard --logdir`."""

    def __init__(self, folder: Path, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(folder), purge_step=step + 1)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def picture(self, step: int, name: str, image: Image) -> None:
        self.writer.add_image(name, np.asarray(image), step, dataformats="HWC")

    def close(self) -> None:
        self.writer.close()


class WandbTracker:
    """A Weights & Biases run in <run>/wandb; starting the run again goes on with it."""

    def __init__(self, folder: Path, name: str, settings: WandbConfig, config: Mapping[str, Any]) -> None:
        import wandb

        self.image_type = wandb.Image
        id_file = folder / "wandb_id"
        id_file.parent.mkdir(parents=True, exist_ok=True)
        if not id_file.exists():
            id_file.write_text(uuid.uuid4().hex[:8])
        self.run = wandb.init(
            project=settings.project,
            entity=settings.entity,
            group=settings.group,
            mode=settings.mode,
            name=name,
            id=id_file.read_text().strip(),
            resume="allow",
            dir=str(folder),
            config=dict(config),
            # A server that does not answer costs a minute or two, not the run.
            settings=wandb.Settings(
                login_timeout=30, init_timeout=30, finish_timeout=60, console="off", silent=True
            ),
        )

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self.run.log(dict(values), step=step)

    def picture(self, step: int, name: str, image: Image) -> None:
        self.run.log({name: self.image_type(image)}, step=step)

    def close(self) -> None:
        self.run.finish()


class Trackers:
    """All trackers of a run. One that fails is named in a single warning and left out from then on."""

    def __init__(self, makers: Mapping[str, Callable[[], Tracker]], warn: Callable[[str], None]) -> None:
        self.warn = warn
        self.active: dict[str, Tracker] = {}
        for name, make in makers.items():
            self._try(name, partial(self._start, name, make))

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

    def _start(self, name: str, make: Callable[[], Tracker]) -> None:
        self.active[name] = make()

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


def make_trackers(
    config: Config, plain: Mapping[str, Any], step: int, warn: Callable[[str], None]
) -> Trackers:
    """The trackers that the settings name. plain: the settings as plain data. step: where the run goes on."""
    folder, wanted = Path(config.run.dir), config.tracker
    makers: dict[str, Callable[[], Tracker]] = {}
    if wanted.csv:
        makers["csv"] = lambda: CsvTracker(folder / "metrics.csv", step)
    if wanted.tensorboard:
        makers["tensorboard"] = lambda: TensorBoardTracker(folder / "tensorboard", step)
    if (settings := wanted.wandb) is not None:
        makers["wandb"] = lambda: WandbTracker(folder, config.name, settings, plain)
    return Trackers(makers, warn)
