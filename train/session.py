"""Everything of a run, made from its settings in the order in which mistakes are cheapest to find."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from dataset_tools.batches import Batch
from dataset_tools.stream import Stream
from modules.host_memory import keep_freed
from modules.schema import ConfigError, nearest
from train.checkpoints.folders import CheckpointError, Checkpoints
from train.checkpoints.resuming import Resumed, export_again, resume, resume_data
from train.checkpoints.saver import Saver
from train.claim import Claim
from train.config import Config
from train.device_limits import check_device
from train.ema import Ema
from train.feed import placed
from train.hooks import Hook, Profile, Report, Save, Sheets
from train.latents import use_latents
from train.optim.rounding import lower
from train.parallel.mesh import shard_size
from train.parallel.preparation import prepare, shard
from train.parallel.world import World
from train.player import Player
from train.recipe import Recipe
from train.recipes import make_recipe
from train.reports import tally
from train.reports.card import write_card
from train.reports.progress import Progress
from train.reports.record import RunRecord
from train.reports.trackers import RunFacts, Trackers, chosen
from train.rng import seed_global
from train.state import Counters, TrainingState

BUILD_STEP = -2  # seeds the initial weights
DECISIVE = ("recipe.", "model.", "gdf.", "optim.name", "run.ema.enabled")  # for what a checkpoint holds


@dataclass
class Session:
    """A run that is ready to start."""

    config: Config
    world: World
    state: TrainingState
    hooks: list[Hook]
    autocast: Callable[[], AbstractContextManager]
    progress: Progress
    trackers: Trackers
    record: RunRecord
    saver: Saver
    claim: Claim

    @contextmanager
    def noted(self) -> Iterator[dict[str, Any]]:
        """Note at the end of the context how the run ended: what was put into the dict, or the error and what
        this process knows: the others may not answer any more."""
        facts: dict[str, Any] = {}
        try:
            yield facts
        except BaseException as error:
            facts["error"] = f"{type(error).__name__}: {error}"
            facts.update(tally.of_this_rank(self.state.stream, self.world))
            raise
        finally:
            self.state.stream.close()
            self.saver.close()
            if self.world.is_first:
                self._record(facts)
                self.trackers.close()
                self.progress.close()
            self.claim.let_go()

    def _record(self, facts: dict[str, Any]) -> None:
        try:
            self.record.end(facts)
            if "error" not in facts:
                write_card(self.record.folder)
        except (OSError, ValueError) as error:
            # A full disk, most likely: what ended the run is to be heard of.
            self.progress.note(f"how the run ended was not noted: {error}")


def make_session(config: Config, recipe: Recipe | None, world: World) -> Session:
    """Check, open the data, build the networks, take back the newest checkpoint.

    The data workers begin to read as soon as it is known where: they go on while the rest is made.
    recipe: in place of the one that the settings name. Raises ValueError or OSError, one line, for whatever
    was given wrong; no worker is left then.
    """
    check_folder(config)
    check_processes(config, world)
    check_device(config, world.device)
    set_arithmetic(config, world)
    run, claim = config.run, Claim(Path(config.run.dir))
    stream = Stream(config.data, rank=world.rank, world_size=world.size, seed=run.seed)
    checkpoints = Checkpoints(Path(run.dir) / "checkpoints", run.keep_every, run.keep_last)
    try:
        if world.is_first and Path(run.dir).exists():
            claim.hold()
        if stream.latents is None and not checkpoints.are_there:  # what it needs of latents, the recipe knows
            stream.start()
        recipe = recipe or make_recipe(config)
        check_players(config, recipe, world)
        if stream.latents is not None:
            stream.latents = use_latents(recipe, config.recipe["name"], stream.latents)
        with with_changes(config):
            found = resume_data(checkpoints, stream, world)
        stream.start()
        sheet_batch = first_pictures(config)  # data with nothing usable end the run here
        state = build(config, recipe, world, stream, claim)
        if found:
            with with_changes(config):
                found = resume(found, checkpoints, state)
        return begin(config, state, checkpoints, found, sheet_batch, claim)
    except BaseException:
        stream.close()
        claim.let_go()
        raise


def begin(
    config: Config,
    state: TrainingState,
    checkpoints: Checkpoints,
    resumed: Resumed | None,
    sheet_batch: Batch,
    claim: Claim,
) -> Session:
    """Note that the run starts or goes on, and make all that tells of it."""
    step, world, settings = state.counters.step, state.world, asdict(config)
    folder = Path(config.run.dir)
    progress = Progress(config.name, config.run.num_steps, step)
    record = RunRecord(folder, settings, state.counters.run_id)
    state.counters.run_id = record.run_id
    facts = RunFacts(folder, config.name, record.run_id, step, settings)
    trackers = Trackers({}, facts, progress.note)
    if world.is_first:
        checkpoints.clean()
        if resumed:
            announce(progress, record, step, resumed)
            export_again(resumed, folder / "weights")
        record.begin(step, world.size, str(world.device))
        trackers = Trackers(chosen(config.tracker), facts, progress.note)
    note = progress.note if world.is_first else lambda text: None
    saver = Saver(checkpoints, state, folder / "weights", note)
    casts = autocast(config.run.precision, world.device)
    session = Session(config, world, state, [], casts, progress, trackers, record, saver, claim)
    session.hooks = make_hooks(session, sheet_batch)
    return session


def check_folder(config: Config) -> None:
    """Whether the run's folder is free, or that of a run with the same recipe, which is gone on with."""
    changes = RunRecord(Path(config.run.dir), asdict(config)).changes()
    for change in changes:
        if change.startswith("recipe.name:"):
            raise ConfigError(
                f"run.dir: {config.run.dir} holds a run of another recipe ({change}); name another folder"
            )


def check_processes(config: Config, world: World) -> None:
    """Whether the settings suit the number of processes."""
    if world.size > 1 and config.parallel.mode == "single":
        raise ConfigError(
            f"parallel.mode: single, but {world.size} processes were started; use parallel=ddp, fsdp or hsdp"
        )
    shard_size(config.parallel, world)


def check_players(config: Config, recipe: Recipe, world: World) -> None:
    """Whether the settings suit those who learn."""
    for player in config.optim.players:
        if player not in recipe.players:
            raise ConfigError(f"optim.players.{player}: unknown player; {nearest(player, recipe.players)}")
    if world.size > 1 and any(config.optim.of(player).fused_backward for player in recipe.players):
        raise ConfigError(
            f"optim.fused_backward: found true, but {world.size} processes were started, whose gradients are"
            " to be averaged before they are applied; use false"
        )


def set_arithmetic(config: Config, world: World) -> None:
    """Threads and memory on a CPU; on a GPU the tensor cores (TF32) also for fp32 products, convolutions
    among them, where bf16 is allowed anyway."""
    if config.run.num_threads is not None:
        torch.set_num_threads(config.run.num_threads)
    keep_freed(world.device)
    if world.device.type == "cuda":
        is_rounded = config.run.precision == "bf16"
        torch.set_float32_matmul_precision("high" if is_rounded else "highest")
        torch.backends.cudnn.allow_tf32 = is_rounded  # which PyTorch allows by itself, unlike for matrices


def first_pictures(config: Config) -> Batch:
    """The pictures of the sample sheets: the first of the data, the same on all ranks and at every start."""
    data = config.data.in_order(config.run.num_samples)
    return next(iter(Stream(data, rank=0, world_size=1, seed=config.run.seed)))


def build(config: Config, recipe: Recipe, world: World, stream: Stream, claim: Claim) -> TrainingState:
    """The networks, who learns, and the average, with their initial values."""
    seed_global(config.run.seed, BUILD_STEP, 0, 0)  # the same initial weights on all ranks
    recipe.build(world.device)
    if world.is_first:
        Path(config.run.dir).mkdir(parents=True, exist_ok=True)
        claim.hold()
        recipe.export(Path(config.run.dir))  # while what it writes is whole
    players = recipe.trainable()
    for name in recipe.players:
        if config.optim.of(name).weights == "bf16_stochastic":
            lower(players[name])
    if config.run.channels_last:
        for network in recipe.prepared():
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    prepare(recipe.prepared(), config.parallel, world)
    shard(recipe.prepared(), recipe.helpers(), config.parallel, world, config.run.precision)
    for network in recipe.networks().values():
        network.train()
    ema = Ema(players[recipe.players[0]], config.run.ema) if config.run.ema.enabled else None
    made = [Player(n, players[n], config.optim.of(n), world, config.run.seed) for n in recipe.players]
    return TrainingState(recipe, made, ema, stream, Counters(), world)


def announce(progress: Progress, record: RunRecord, step: int, resumed: Resumed) -> None:
    """Say where the run goes on, and what is not as it was."""
    progress.note(f"going on after step {step}; checkpoint read in {resumed.seconds:.2f} s")
    for change in record.changes():
        progress.note(f"  changed since the last start: {change}")


@contextmanager
def with_changes(config: Config) -> Iterator[None]:
    """Tell, with a checkpoint's problem, of the settings that may be the reason for it."""
    try:
        yield
    except CheckpointError as error:
        record = RunRecord(Path(config.run.dir), asdict(config))
        changes = [change for change in record.changes() if change.startswith(DECISIVE)]
        if not changes:
            raise
        raise CheckpointError(f"{error}; changed since the last start: {', '.join(changes)}") from error


def make_hooks(session: Session, sheet_batch: Batch) -> list[Hook]:
    """What happens after every step, in this order."""
    run, world, state = session.config.run, session.world, session.state
    folder = Path(run.dir)
    hooks: list[Hook] = [Report(run.log_every, session.saver, session.trackers, session.progress)]
    if run.sample_every:
        batch = placed(sheet_batch, world.device, run.channels_last)
        hooks.append(Sheets(run, batch, state.recipe, state.ema, session.autocast, world, session.trackers))
    hooks.append(Save(run, session.saver))
    if run.profile_steps:
        hooks.append(Profile(run.profile_steps, folder / "profile", world))
    return hooks


def autocast(precision: str, device: torch.device) -> Callable[[], AbstractContextManager]:
    """bf16 products with fp32 weights, or (fp32) nothing."""
    if precision == "bf16":
        return lambda: torch.autocast(device.type, torch.bfloat16)
    return nullcontext
