"""Weights & Biases."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from PIL.Image import Image

from train.reports.trackers.base import RunFacts, Tracker


@dataclass
class WandbTracker(Tracker):
    """Weights & Biases, in the run's folder `wandb/`; started again with the same id, it goes on with that.

    The server takes a step's numbers once: what a resumed run tells again is what it told before.
    """

    project: str = "kaskade"
    mode: Literal["offline", "online"] = "offline"  # offline runs are uploaded later with `wandb sync`
    entity: str | None = None
    group: str | None = None

    def start(self, run: RunFacts) -> None:
        import wandb

        self.image_type = wandb.Image
        run.folder.mkdir(parents=True, exist_ok=True)
        self.run = wandb.init(
            project=self.project,
            entity=self.entity,
            group=self.group,
            mode=self.mode,
            name=run.name,
            id=run.run_id,
            resume="allow",
            dir=str(run.folder),
            config=dict(run.settings),
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
