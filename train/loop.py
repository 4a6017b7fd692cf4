"""The training loop: everything that a recipe does not say."""

import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from torch import Tensor

from dataset_tools.batches import Batch
from train.config import Config
from train.feed import Feed, feeds
from train.hooks import StepDone
from train.interrupts import StopRequest, how_to_go_on, stop_requests
from train.optim.rates import learning_rate
from train.parallel.world import join
from train.player import Player, Update, only
from train.recipe import Metrics, Recipe
from train.reports import tally
from train.rng import seed_global, step_rng
from train.session import Session, make_session


@dataclass(frozen=True)
class Summary:
    """How a run ended."""

    step: int
    loss: float  # of the first player in the last step; NaN if no step was left to take
    skipped_steps: int  # over the run's whole life
    interrupted: bool  # asked to end before the last step; the same command goes on
    seconds: float


class DivergedError(RuntimeError):
    """Losses or gradients were not finite too many steps in a row."""


def run(config: Config, recipe: Recipe | None = None) -> Summary:
    """Train as the settings say, going on from the newest checkpoint in the run's folder if there is one.

    recipe: in place of the one that the settings name. Raises ValueError or OSError when something that was
    given is wrong, DivergedError when the run cannot go on.
    """
    with stop_requests() as stop:
        return train(make_session(config, recipe, join(config.run.device, config.parallel)), stop)


def train(session: Session, stop: StopRequest) -> Summary:
    """Take the steps that are left, or as many as there is time for."""
    run, state, world = session.config.run, session.state, session.world
    counters, began = state.counters, time.monotonic()
    loss, is_last = math.nan, False
    with session.noted() as facts:
        interrupted = stop.of_any(world.size)  # while everything was made ready
        supply = feeds(state.stream, run.num_accum, world, run.channels_last, run.repeat_batch)
        while counters.step < run.num_steps and not (is_last or interrupted):
            started = time.monotonic()
            feed = next(supply, None)
            if feed is None:  # all epochs were done before this start
                break
            metrics: list[tuple[Metrics, float]] = []
            updates = [update(session, player, feed, metrics) for player in state.players]
            state.recipe.after_step(counters.step)
            counters.count(feed.num_pictures, all(each.is_finite for each in updates))
            check_finite(session, updates)
            is_complete = feed.is_last or counters.step == run.num_steps
            loss, interrupted = updates[0].loss, stop.of_any(world.size) and not is_complete
            is_last = interrupted or is_complete
            seconds = time.monotonic() - started
            done = StepDone(counters, metrics, feed.num_pictures, seconds, feed.seconds, is_last, is_complete)
            for hook in session.hooks:
                hook(done)
        summary = Summary(counters.step, loss, counters.skipped_steps, interrupted, time.monotonic() - began)
        facts.update(asdict(summary), **tally.of_all_ranks(state.stream))
        tell_left_out(session, facts["left_out"])
        if interrupted and world.is_first:
            session.progress.note(how_to_go_on(counters.step))
        elif counters.step < run.num_steps and world.is_first:
            epochs = session.config.data.epochs
            session.progress.note(
                f"ended after step {counters.step} of {run.num_steps}: all of data.epochs={epochs} is read"
            )
    return summary


def tell_left_out(session: Session, counts: dict[str, int]) -> None:
    """Say how many broken and filtered samples all ranks have left out, by kind."""
    if counts and session.world.is_first:
        told = ", ".join(f"{number} {kind}" for kind, number in counts.items())
        session.progress.note(f"left out of the data: {told} (docs/data.md says what these are)")


def update(session: Session, player: Player, feed: Feed, metrics: list[tuple[Metrics, float]]) -> Update:
    """One step of one player while the others stand still; what there is to report is added to `metrics`."""
    run, state, step = session.config.run, session.state, session.state.counters.step
    prefix = f"{player.name}/" if len(state.players) > 1 else ""

    def report(values: Metrics, weight: float = 1.0) -> None:
        metrics.append(({prefix + name: value for name, value in values.items()}, weight))

    def losses() -> Iterator[Tensor]:
        for index, batch in enumerate(feed.batches):
            loss, values = micro_loss(session, player, batch, index)
            report(values, batch.get("share", 1.0))
            yield loss

    rate = learning_rate(player.config, step, run.num_steps)
    with only(player, state.players):
        done = player.update(losses(), len(feed.batches), rate, run.clip_norm, step)
    if state.ema and player is state.players[0]:
        state.ema.update(step + 1)
    report({"loss": done.loss, "gradient_norm": done.gradient_norm, "learning_rate": rate})
    return done


def micro_loss(session: Session, player: Player, batch: Batch, index: int) -> tuple[Tensor, Metrics]:
    """The player's loss on micro-batch `index`, with the chance of its place in the global batch."""
    seed, world, step = session.config.run.seed, session.world, session.state.counters.step
    seed_global(seed, step, world.rank, index)
    first = (index * world.size + world.rank) * session.config.data.batch_size  # a batch may be shorter
    with session.autocast():
        rng = step_rng(seed, step, first, len(batch["captions"]))
        loss, metrics = session.state.recipe.loss(player.name, batch, rng)
    return (loss * batch["share"] if "share" in batch else loss), metrics


def check_finite(session: Session, updates: list[Update]) -> None:
    """End a run whose steps keep being skipped. Raises DivergedError."""
    limit, counters = session.config.run.max_nonfinite, session.state.counters
    if counters.nonfinite_in_a_row >= limit:
        found = ", ".join(f"loss {done.loss:g}, gradient norm {done.gradient_norm:g}" for done in updates)
        folder = session.config.run.dir
        is_saved = session.saver.checkpoints.are_there
        saved = f"the newest checkpoint in {folder} is from before; " if is_saved else ""
        raise DivergedError(
            f"step {counters.step}: loss or gradient not finite in {limit} steps in a row ({found}); {saved}"
            f"try a lower optim.lr, a longer optim.warmup_steps or run.precision=fp32"
        )
