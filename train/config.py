"""The settings of a training run as plain dataclasses, and the combinations that cannot work."""

import importlib.util
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from dataset_tools.data_config import DataConfig
from modules.schema import ConfigError, bounded, from_plain, nearest
from train.reports import trackers


@dataclass
class EmaConfig:
    """A moving average of the first player's weights; samples are drawn from it and it is exported too."""

    enabled: bool = True
    start: int = bounded(0, least=0)  # steps up to which an update copies the weights
    interval: int = bounded(1, least=1)  # steps between two updates
    decay: float = bounded(0.9999, least=0.0, most=1.0)  # per step, whatever the interval


@dataclass
class RunConfig:
    """How long, where, how exactly, and what is written when.

    Counts are optimizer steps; 0, where it is taken, means never.
    """

    dir: str
    num_steps: int = bounded(1000, least=1)
    seed: int = bounded(0, least=0)
    num_accum: int = bounded(1, least=1)  # micro-batches per step
    precision: Literal["bf16", "fp32"] = "fp32"  # bf16 by autocast; weights and optimizer stay fp32
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    num_threads: int | None = bounded(None, least=1)  # of a process on the CPU; null: as torch decides
    channels_last: bool = False  # memory layout of images and convolutions
    clip_norm: float | None = bounded(1.0, least=0.0)
    max_nonfinite: int = bounded(10, least=1)  # skipped steps in a row that end the run
    log_every: int = bounded(10, least=1)
    save_every: int = bounded(1000, least=1)
    keep_every: int = bounded(0, least=0)  # checkpoints at these steps stay, of others only the newest ones
    keep_last: int = bounded(2, least=1)  # how many: one to fall back on if the newest is damaged
    export: Literal["always", "end", "never"] = "always"  # of the networks to weights/: at every checkpoint
    sample_every: int = bounded(0, least=0)
    num_samples: int = bounded(4, least=1)  # columns of a sample sheet
    repeat_batch: bool = False  # learn the first batch by heart (debug=overfit)
    profile_steps: int = bounded(0, least=0)  # steps recorded by the profiler, after two to warm up
    ema: EmaConfig = field(default_factory=EmaConfig)

    def exports(self, is_complete: bool) -> bool:
        """Whether the networks are exported with a checkpoint; is_complete: nothing is left to do."""
        return self.export == "always" or (self.export == "end" and is_complete)


@dataclass
class OptimConfig:
    """The optimizer and its learning rate."""

    name: Literal["adamw", "adamw8bit", "paged_adamw8bit"] = "adamw"
    weights: Literal["fp32", "bf16_stochastic"] = "fp32"  # of products' matrices and kernels that learn
    fused_backward: bool = False  # apply and free each gradient within the backward pass
    lr: float = bounded(1e-4, least=0.0)
    weight_decay: float = bounded(0.01, least=0.0)  # not for embeddings, nor for what has one dimension
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = bounded(1e-8, least=0.0)
    warmup_steps: int = bounded(0, least=0)
    schedule: Literal["constant", "cosine"] = "constant"
    final_lr_share: float = bounded(0.0, least=0.0, most=1.0)  # of lr, where the cosine ends
    players: dict[str, dict[str, Any]] = field(default_factory=dict)  # differences of single players

    def of(self, player: str) -> "OptimConfig":
        """These settings with the player's differences."""
        own = self.players.get(player, {})
        where = f"optim.players.{player}"
        if "players" in own:
            raise ConfigError(f"{where}.players: expected settings of this player alone; leave it out")
        checked = asdict(from_plain(OptimConfig, own, where))
        return replace(self, **{key: checked[key] for key in own}, players={})


@dataclass
class ParallelConfig:
    """How several processes share the work, and what is traded for memory or speed."""

    mode: Literal["single", "ddp", "fsdp", "hsdp"] = "ddp"  # with a single process all are the same
    shard_size: int | None = bounded(None, least=1)  # hsdp: processes that share one copy; null: a machine's
    shard_frozen: bool = False  # fsdp, hsdp: share out also the networks that only help (encoders, Stage A)
    compile: bool = False  # torch.compile, block by block
    # recompute the blocks in the backward pass; selective: not products and attention
    activation_checkpointing: bool | Literal["selective"] = False
    dead_after_s: float = bounded(30.0, least=1.0)  # a process without a sign of life ends all the others
    timeout_s: float = bounded(1800.0, least=1.0)  # for all processes to meet, and for one collective call


@dataclass
class MemoryConfig:
    """How much memory a GPU has (10⁹ bytes), and what was chosen for it, which a resumed run keeps to."""

    gb: float = bounded(80.0, least=0.1)
    chosen: dict[str, Any] | None = None  # settings by dotted key
    expected_gb: float | None = None  # at most at one time
    text: str = ""  # what was chosen, in words
    made_for: str = ""  # a checksum of the settings that it was chosen for
    processes: int = 1  # that it was chosen for


@dataclass
class Config:
    """A training run. `recipe`, `model` and `gdf` are checked by the recipe that they belong to."""

    name: str
    run: RunConfig
    recipe: dict[str, Any]
    data: DataConfig
    model: dict[str, Any] = field(default_factory=dict)
    gdf: dict[str, Any] = field(default_factory=dict)
    optim: OptimConfig = field(default_factory=OptimConfig)
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    tracker: dict[str, Any] = field(default_factory=lambda: {"csv": True})  # name: its settings, or true
    memory: MemoryConfig | None = None  # what `train.budget.presets` has fitted the settings to


def config_from_plain(plain: Mapping[str, Any]) -> Config:
    """The checked settings. Raises ConfigError or FileNotFoundError, each one line."""
    present = {key: value for key, value in plain.items() if value is not None}
    config = from_plain(Config, present)
    check(config)
    return config


def check(config: Config) -> None:
    """Raise for combinations that cannot work and files that are not there, before anything is built."""
    if "name" not in config.recipe:
        raise ConfigError("recipe.name: missing; name an experiment (experiment=…) or a recipe (recipe=…)")
    if not config.name.strip():
        raise ConfigError("name: missing; expected text, by which the run is called")
    if not config.run.dir.strip():
        raise ConfigError("run.dir: missing; expected the run's folder")
    if Path(config.run.dir).is_file():
        raise ConfigError(f"run.dir: expected a folder, found the file {config.run.dir}")
    config.data.check()
    trackers.chosen(config.tracker)
    run, optim = config.run, config.optim
    if run.keep_every % run.save_every:
        raise ConfigError(
            f"run.keep_every: expected a multiple of run.save_every ({run.save_every}),"
            f" found {run.keep_every}"
        )
    if run.clip_norm == 0:
        raise ConfigError(
            "run.clip_norm: expected a norm above 0, or null to leave gradients as they are; found 0, with"
            " which nothing would learn"
        )
    _check_parallel(config.parallel)
    for name in (None, *optim.players):
        _check_optim(optim.of(name) if name else optim, config)
    for name, entry in config.model.items():
        if isinstance(entry, Mapping):  # else the recipe will say
            _check_network(name, entry, config.parallel)


def check_exists(path: str, where: str) -> None:
    """Raise FileNotFoundError, naming the nearest file beside it, unless `path` is there."""
    place = Path(path)
    if place.exists():
        return
    existing = next(parent for parent in place.absolute().parents if parent.exists())
    beside = [item.name for item in existing.iterdir()]
    missing = place.absolute().relative_to(existing).parts[0]
    raise FileNotFoundError(f"{where}: no file or folder '{path}'; in {existing}: {nearest(missing, beside)}")


def _check_network(name: str, entry: Mapping[str, Any], parallel: ParallelConfig) -> None:
    if isinstance(weights := entry.get("weights"), str):
        check_exists(weights, f"model.{name}.weights")
    if entry.get("offload") and parallel.shard_frozen:
        raise ConfigError(
            f"model.{name}.offload: found true, but parallel.shard_frozen shares such networks out over the"
            " GPUs; choose one of the two"
        )
    if entry.get("frozen_weights") == "nf4" and importlib.util.find_spec("bitsandbytes") is None:
        raise ConfigError(
            f"model.{name}.frozen_weights: nf4 needs bitsandbytes: pip install bitsandbytes, or use int8"
        )


def _check_parallel(parallel: ParallelConfig) -> None:
    if parallel.shard_size is not None and parallel.mode != "hsdp":
        raise ConfigError(
            f"parallel.shard_size: found {parallel.shard_size}, which parallel={parallel.mode} does not read;"
            " leave it out, or use parallel=hsdp"
        )
    if parallel.shard_frozen and parallel.mode not in ("fsdp", "hsdp"):
        raise ConfigError(
            f"parallel.shard_frozen: found true, but parallel={parallel.mode} shares out no weights;"
            " leave it out, or use parallel=fsdp or hsdp"
        )
    if parallel.activation_checkpointing == "selective" and parallel.compile:
        raise ConfigError(
            "parallel.activation_checkpointing: expected false or true with parallel.compile, which chooses"
            " by itself what a block keeps, found selective"
        )


def _check_optim(optim: OptimConfig, config: Config) -> None:
    if optim.schedule == "cosine" and optim.warmup_steps >= config.run.num_steps:
        raise ConfigError(
            f"optim.warmup_steps: expected less than run.num_steps ({config.run.num_steps}) with"
            f" schedule cosine, found {optim.warmup_steps}"
        )
    if max(optim.betas) >= 1 or min(optim.betas) < 0:
        raise ConfigError(f"optim.betas: expected two numbers from 0 to below 1, found {list(optim.betas)}")
    if optim.fused_backward:
        _check_fused_backward(config.run)
    if optim.weights == "bf16_stochastic" and config.run.precision != "bf16":
        raise ConfigError(
            f"optim.weights: bf16_stochastic needs run.precision=bf16, found {config.run.precision}"
        )
    for key, value, plain in (("name", optim.name, "adamw"), ("weights", optim.weights, "fp32")):
        if value != plain and config.parallel.mode in ("fsdp", "hsdp"):
            raise ConfigError(
                f"optim.{key}: {value} cannot work on the shards of parallel={config.parallel.mode};"
                f" use {plain} or ddp"
            )
    if optim.name != "adamw" and importlib.util.find_spec("bitsandbytes") is None:
        raise ConfigError(
            f"optim.name: {optim.name} needs bitsandbytes: pip install bitsandbytes, or use adamw"
        )


def _check_fused_backward(run: RunConfig) -> None:
    """Whatever needs all gradients first cannot be done with gradients that are applied as they come."""
    for key, found, needed in (("clip_norm", run.clip_norm, None), ("num_accum", run.num_accum, 1)):
        if found != needed:
            expected = "null" if needed is None else needed
            raise ConfigError(
                f"run.{key}: expected {expected} with optim.fused_backward, which applies each gradient"
                f" before all are known, found {found:g}"
            )
