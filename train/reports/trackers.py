"""Where metrics and sample sheets go: CSV, TensorBoard, Weights & Biases. None of them ever stops a run."""

import csv
import math
import os
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
    """metrics.csv: one row per report.

    Of a run that goes on after `step`, later rows are dropped, and columns that only these had: the file is
    as it was when that step was done.
    """

    def __init__(self, path: Path, step: int) -> None:
        self.path = path
        self.columns = ["step"]
        if path.exists():
            rows = [row for row in self._rows() if int(row["step"]) <= step]
            known = list(rows[0])[1:] if rows else []
            self.columns += [name for name in known if any(row[name] for row in rows)]
            self._rewrite(rows)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        new = [name for name in values if name not in self.columns]
        if new:  # a metric that was not there before: the header must be written again
            rows = self._rows() if self.path.exists() else []
            self.columns += new
            self._rewrite(rows)
        with self.path.open("a", newline="") as file:
            csv.DictWriter(file, self.columns, restval="").writerow({"step": step, **values})

    def picture(self, step: int, name: str, image: Image) -> None:
        """Pictures have no place in a table."""

    def close(self) -> None:
        """Every row is written at once."""

    def _rows(self) -> list[dict[str, str]]:
        """What is written; a last line that a killed process left half-written is not."""
        whole, _, _ = self.path.read_bytes().rpartition(b"\n")
        return list(csv.DictReader(whole.decode().splitlines()))

    def _rewrite(self, rows: list[dict[str, Any]]) -> None:
        unfinished = self.path.with_name(f".{self.path.name}.unfinished")
        with unfinished.open("w", newline="") as file:
            writer = csv.DictWriter(file, self.columns, restval="", extrasaction="ignore")
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
        self.writer.flush()  # what a killed run kept in memory would be missing before its checkpoint

    def picture(self, step: int, name: str, image: Image) -> None:
        self.writer.add_image(name, np.asarray(image), step, dataformats="HWC")

    def close(self) -> None:
        self.writer.close()


class WandbTracker:
    """A Weights & Biases run in <run>/wandb; started again with the same run_id, it goes on with it.

    The server takes a step's numbers once: what a resumed run tells again is what it told before.
    """

    def __init__(
        self, folder: Path, name: str, run_id: str, settings: WandbConfig, config: Mapping[str, Any]
    ) -> None:
        import wandb

        self.image_type = wandb.Image
        folder.mkdir(parents=True, exist_ok=True)
        self.run = wandb.init(
            project=settings.project,
            entity=settings.entity,
            group=settings.group,
            mode=settings.mode,
            name=name,
            id=run_id,
            resume="allow",
            dir=str(folder),
            config=dict(config),
            # A server that does not answer costs a minute or two, not the run. What was told is on the disk
            # after a second, for the process that writes it may be killed too.
            settings=wandb.Settings(
                login_timeout=30,
                init_timeout=30,
                finish_timeout=60,
                x_transaction_log_flush_interval=1.0,
                console="off",
                silent=True,
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
    config: Config, plain: Mapping[str, Any], step: int, run_id: str, warn: Callable[[str], None]
) -> Trackers:
    """The trackers that the settings name, for the run that they know as `run_id` and that goes on at `step`.

    plain: the settings as plain data.
    """
    folder, wanted = Path(config.run.dir), config.tracker
    makers: dict[str, Callable[[], Tracker]] = {}
    if wanted.csv:
        makers["csv"] = lambda: CsvTracker(folder / "metrics.csv", step)
    if wanted.tensorboard:
        makers["tensorboard"] = lambda: TensorBoardTracker(folder / "tensorboard", step)
    if (settings := wanted.wandb) is not None:
        makers["wandb"] = lambda: WandbTracker(folder, config.name, run_id, settings, plain)
    return Trackers(makers, warn)
