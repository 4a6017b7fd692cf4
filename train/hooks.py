"""What happens between the steps: reports, sample sheets, checkpoints, profiles; on all ranks."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

import torch
from PIL.Image import Image
from torch import Tensor

from dataset_tools.batches import Batch
from modules.pictures import save_png
from train.checkpoints.saver import Saver
from train.config import RunConfig
from train.ema import Ema
from train.parallel.shards import reshard
from train.parallel.world import World
from train.recipe import Metrics, Recipe
from train.reports.progress import Progress
from train.reports.sheets import sheet
from train.reports.trackers import Trackers
from train.rng import seed_global, step_rng
from train.state import Counters

SHEET_STEP = -1  # seeds the chance of the sample sheets: the same noise every time, and unlike any step's


class StepDone(NamedTuple):
    """One finished step."""

    counters: Counters
    metrics: Sequence[tuple[Metrics, float]]  # of every micro-batch and player, with what they count
    num_pictures: int  # in the global batch
    seconds: float  # the step took, waiting for data included
    waiting_seconds: float  # for data
    is_last: bool  # nothing comes after it, be it that all is done or that the run was asked to end
    is_complete: bool  # all is done

    @property
    def step(self) -> int:
        """How many steps are done."""
        return self.counters.step


Hook = Callable[[StepDone], None]


class Report:
    """Means of the metrics since the last report, to the trackers and the progress line."""

    def __init__(self, every: int, saver: Saver, trackers: Trackers, progress: Progress) -> None:
        self.every, self.saver, self.trackers, self.progress = every, saver, trackers, progress
        self.means, self.world = saver.state.means, saver.world
        self.steps: list[StepDone] = []  # since the last report

    def __call__(self, done: StepDone) -> None:
        for metrics, weight in done.metrics:
            self.means.add(metrics, weight)
        self.steps.append(done)
        # Not where the run is only interrupted: it would leave a row that an uninterrupted run has not.
        if done.step % self.every == 0 or done.is_complete:
            values = {**self.means.result(), **self._speed(), **self.saver.timings()}
            values |= {"samples": done.counters.samples, "skipped_steps": done.counters.skipped_steps}
            self.steps.clear()
            if self.world.is_first:
                self.trackers.scalars(done.step, values)
                self.progress.report(done.step, main_loss(values), values["samples_per_second"])

    def _speed(self) -> dict[str, float]:
        seconds = max(sum(done.seconds for done in self.steps), 1e-9)
        return {
            "samples_per_second": sum(done.num_pictures for done in self.steps) / seconds,
            "data_wait_share": sum(done.waiting_seconds for done in self.steps) / seconds,
        }


class Sheets:
    """samples/step_….png: the same pictures with the same noise every time, drawn with weights and EMA."""

    def __init__(
        self,
        run: RunConfig,
        batch: Batch,
        recipe: Recipe,
        ema: Ema | None,
        autocast: Callable[[], AbstractContextManager],
        world: World,
        trackers: Trackers,
    ) -> None:
        self.run, self.batch, self.recipe, self.ema = run, batch, recipe, ema
        self.autocast, self.world, self.trackers = autocast, world, trackers

    def __call__(self, done: StepDone) -> None:
        if done.step % self.run.sample_every == 0 or done.is_complete:
            page = self.draw()  # on all ranks: sharded weights need them all
            if self.world.is_first:
                path = Path(self.run.dir) / "samples" / f"step_{done.step:08d}.png"
                save_png(page, path)
                self.trackers.picture(done.step, "samples", page)

    def draw(self) -> Image:
        """The sheet with the weights as they are now."""
        for player in self.recipe.trainable().values():
            player.zero_grad(set_to_none=True)  # the next step would do it, but memory is needed now
        rows = self._rows()
        if self.ema:
            with self.ema.in_place():
                averaged = self._rows()
            label = list(averaged)[-1]
            rows[f"{label}, EMA"] = averaged[label]
        return sheet(rows, self.batch["captions"])

    @torch.no_grad()
    def _rows(self) -> dict[str, Tensor]:
        learning = list(self.recipe.networks().values())
        for network in learning:
            network.eval()
        seed_global(self.run.seed, SHEET_STEP, 0, 0)
        with self.autocast():
            rng = step_rng(self.run.seed, SHEET_STEP, 0, len(self.batch["captions"]))
            rows = self.recipe.sample(self.batch, rng)
        for network in learning:
            network.train()
        for network in self.recipe.prepared():
            reshard(network)
        return dict(rows)


class Save:
    """checkpoints/step_…, and weights/ with the newest networks for everybody who only wants these.

    The writing goes on beside the next steps; only after the last one is it waited for.
    """

    def __init__(self, run: RunConfig, saver: Saver) -> None:
        self.run, self.saver = run, saver

    def __call__(self, done: StepDone) -> None:
        self.saver.poll()
        if done.step % self.run.save_every == 0 or done.is_last:
            self.saver.save(exports=self.run.exports(done.is_complete))
        if done.is_last:
            self.saver.wait()


class Profile:
    """profile/trace.json (for Perfetto or chrome://tracing) and profile/operators.txt of the first steps."""

    WARM_UP_STEPS = 2

    def __init__(self, steps: int, folder: Path, world: World) -> None:
        self.steps, self.folder, self.world = steps, folder, world
        self.seen = 0
        self.profiler = torch.profiler.profile(record_shapes=True)

    def __call__(self, done: StepDone) -> None:
        self.seen += 1
        if self.seen == self.WARM_UP_STEPS:
            self.profiler.start()
        is_recording = self.WARM_UP_STEPS < self.seen <= self.WARM_UP_STEPS + self.steps
        if is_recording and (self.seen == self.WARM_UP_STEPS + self.steps or done.is_last):
            self.profiler.stop()
            if self.world.is_first:
                self._write()

    def _write(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.profiler.export_chrome_trace(str(self.folder / "trace.json"))
        by_time = f"self_{'cuda' if self.world.device.type == 'cuda' else 'cpu'}_time_total"
        table = self.profiler.key_averages().table(sort_by=by_time, row_limit=60)
        (self.folder / "operators.txt").write_text(table, encoding="utf-8")


def main_loss(values: Mapping[str, float]) -> float:
    """The loss of the first player; NaN when no step was finite."""
    return next((value for name, value in values.items() if name.split("/")[-1] == "loss"), float("nan"))
