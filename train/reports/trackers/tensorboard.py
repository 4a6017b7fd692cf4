"""TensorBoard."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from PIL.Image import Image

from train.reports.trackers.base import RunFacts, Tracker


@dataclass
class TensorBoardTracker(Tracker):
    """`tensorboard/` in the run's folder, for `tensorboard --logdir`."""

    def start(self, run: RunFacts) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(run.folder / "tensorboard"), purge_step=run.step + 1)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()  # what a killed run kept in memory would be missing before its checkpoint

    def picture(self, step: int, name: str, image: Image) -> None:
        self.writer.add_image(name, np.asarray(image), step, dataformats="HWC")

    def close(self) -> None:
        self.writer.close()
