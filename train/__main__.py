"""`python -m train experiment=…`: Hydra composes the settings, `train.config` checks them."""

import os

# Before torch is loaded: threads wait awake for their next work, but only for some microseconds. To wake one
# takes longer than many operations; those that stay awake slow down all who share the cores (docs/log.md).
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
# Tokenizers are used before data workers are forked; they would warn about it at every start.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# A rank that dies costs the others a stack trace per request; `train.parallel.heartbeat` says it in a line.
os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
# Before torch is loaded: what a Mac's GPU (MPS) has no code for, its CPU computes.
os.environ.setdefault("PYTORCH_ENABLE_MPS_FALLBACK", "1")
# Hydra hands errors on instead of printing them; `main` says them in one line.
os.environ["HYDRA_FULL_ERROR"] = "1"

import logging
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast

import hydra
from hydra._internal import hydra as hydra_calls
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from modules.hydra_options import options_last
from modules.hydra_words import in_words, unreadable
from modules.overrides import OPEN, check_arguments, take_targets, targets_checked, with_escaped_keys
from modules.processes import place
from modules.schema import ConfigError, nearest, one_line
from train.budget.typed import typed_keys
from train.checkpoints.folders import CheckpointError
from train.config import config_from_plain
from train.interrupts import stop_requests
from train.loop import DivergedError, train
from train.parallel.meeting import NotMetError
from train.parallel.world import conduct, fail, join
from train.session import make_session

CONFIGS = Path(__file__).parents[1] / "configs"
NO_NAME = re.compile(r"(?<=[=[,])(null|true|false|nan|inf|[\d.+-]+)(?=[],]|$)", re.IGNORECASE)
NAMELESS = ("experiment", "debug")  # in the names of a sweep's folders: of most there is only one
PLACING = ("experiment", "name", "run.dir")  # each says what run.dir is, or leads to
SWEEP = "outputs/sweep"
FAILURE, MISTAKE = 1, 2  # exit status
USAGE = """\
python -m train experiment=NAME [KEY=VALUE ...]        one process
torchrun --nproc-per-node=8 -m train experiment=NAME   several; srun does too
python -m train --multirun optim.lr=1e-4,5e-5 experiment=NAME
python -m train --cfg job experiment=NAME              show the settings, do nothing

debug=smoke|overfit|profile tries an experiment out. The same command again goes on where the run stopped.

Experiments:"""


def main(arguments: Sequence[str]) -> int:
    """Run the command line; returns the exit status. A mistake in the settings is one line and status 2."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if {"--help", "-h"} & set(arguments):
        print(USAGE, *experiment_lines(), sep="\n")
        return 0
    statuses: list[int] = []  # of the jobs: several with --multirun, none with --cfg
    failed: list[Exception] = []  # what jobs ended with that is no mistake in the settings
    here = os.getpid()

    def job(settings: DictConfig) -> None:
        try:
            statuses.append(attempt(settings))
        except Exception as error:
            failed.append(error)
            raise
        if statuses[-1] and os.getpid() != here:  # of a launcher that has other machines do the jobs
            raise HydraException(f"a job ended with status {statuses[-1]}; its log says why")

    try:
        arguments, allowed = take_targets(arguments)
        arguments = options_last(arguments)
        sys.argv[1:] = [*folders(arguments), *(settable(argument) for argument in arguments)]
        check_arguments(arguments, allowed=allowed)
        with targets_checked(hydra_calls, partial(OmegaConf.to_container, resolve=True), allowed):
            hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name="train")(job)()
    except MissingConfigException as error:
        return say(f"{error.missing_cfg_file}: no such option; {nearest_option(error)}", MISTAKE)
    except OverrideParseException as error:
        return say(unreadable(error.override), MISTAKE)
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        if error in failed:
            raise
        return say(in_words(str(error)), MISTAKE)
    return max(statuses, default=0)


class Mistake(Exception):
    """Something given by the user is wrong; its text says what."""


@contextmanager
def mistakes() -> Iterator[None]:
    """Errors within the context are the user's; those of the training itself keep their traceback."""
    try:
        yield
    except NotMetError:
        raise
    except (OmegaConfBaseException, ValueError, OSError) as error:
        raise Mistake(in_words(one_line(error))) from error


def attempt(settings: DictConfig) -> int:
    """Train as composed; returns the exit status."""
    try:
        with stop_requests() as stop:
            with mistakes():
                config = config_from_plain(with_memory(plain(settings)))
                world = join(config.run.device, config.parallel)
                session = make_session(config, None, world)
            train(session, stop)
    except Mistake as error:
        return say(error, MISTAKE)
    except (DivergedError, CheckpointError, OSError) as error:  # the last: a full disk, a share that is gone
        return say(error, FAILURE)
    return 0


def plain(settings: DictConfig) -> dict[str, Any]:
    """The composed settings as plain data. Raises ConfigError when no experiment was named."""
    known = {path.name for path in CONFIGS.iterdir() if path.is_dir()} | {"name"}
    for key in map(str, settings):
        if key not in known:  # also a misspelt group: only here is it known what groups there are
            raise ConfigError(f"{key}: unknown key; {nearest(key, known)}")
    if settings.get("recipe") is None:
        raise ConfigError(f"experiment: missing; expected one of: {', '.join(experiments())}")
    values = cast(dict[str, Any], OmegaConf.to_container(settings, resolve=True))
    if HydraConfig.get().mode == RunMode.MULTIRUN:  # every job of a sweep has a folder of its own
        varied = re.sub(r"[^\w.=,-]", "_", HydraConfig.get().job.override_dirname.replace("+", ""))
        values["run"]["dir"] += f"/{varied}"
    return values


def with_memory(values: dict[str, Any]) -> dict[str, Any]:
    """The settings with what `memory=…` chooses for them; says in a line what that is."""
    if values.get("memory") is None:
        return values
    from train.budget.presets import fitted  # loads much that no other run needs

    config_from_plain(values)  # mistakes first: counting takes a while
    own = place()
    overrides = HydraConfig.get().overrides.task
    found = fitted(values, typed_keys(overrides, CONFIGS), own.size)
    if own.rank == 0:
        logging.info(found.line)
    return found.plain


def folders(arguments: Sequence[str]) -> list[str]:
    """What a sweep over several experiments needs: they name the folders of its jobs, too, and what Hydra
    writes about it, which belongs to none of them, has a folder of its own where run.dir is not known."""
    typed = [argument.lstrip("+") for argument in arguments]
    about = [each for each in typed if each.partition("=")[0] in NAMELESS + PLACING and "${" not in each]
    found = OverridesParser.create().parse_overrides(about)
    swept = {each.key_or_group for each in found if each.is_sweep_override()}
    settings = []
    if swept.intersection(NAMELESS):
        left_out = ",".join([*(name for name in NAMELESS if name not in swept), "run.dir"])
        settings.append(f"hydra.job.config.override_dirname.exclude_keys=[{left_out}]")
    if not {each.key_or_group for each in found}.difference(swept).intersection(PLACING):
        settings.append(f"hydra.sweep.dir={SWEEP}")
    return settings


def settable(argument: str) -> str:
    """An override that Hydra takes in any case, for `train.config` has the better words for a wrong key."""
    if argument in experiments():
        raise ConfigError(f"{argument}: no setting; did you mean 'experiment={argument}'?")
    match = re.fullmatch(r"\+{0,2}([A-Za-z_][\w.]*)(=.*)", argument, flags=re.DOTALL)
    if not match or match[1].startswith("hydra.") and not match[1].startswith(f"hydra.{OPEN}."):
        return argument
    if (CONFIGS / match[1]).is_dir():  # a group, whose options are names whatever they look like
        return match[1] + NO_NAME.sub(r"'\g<0>'", match[2])
    return f"++{match[1]}{with_escaped_keys(match[2])}"


def experiments() -> list[str]:
    """The names of all experiments."""
    folder = CONFIGS / "experiment"
    return sorted(path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml"))


def experiment_lines() -> Iterable[str]:
    """The names with what the first comment of each says."""
    names = experiments()
    for name in names:
        comments = re.findall(
            r"^# (?!@)(.*)",
            (CONFIGS / "experiment" / f"{name}.yaml").read_text(encoding="utf-8"),
            re.MULTILINE,
        )
        yield f"  {name.ljust(max(map(len, names)))}  {comments[0] if comments else ''}".rstrip()


def nearest_option(error: MissingConfigException) -> str:
    """The option of a group that a wrong name probably means."""
    group, slash, name = (error.missing_cfg_file or "").partition("/")
    if not slash:  # no group, but all settings
        return "leave --config-name out"
    folder = CONFIGS / group
    return nearest(
        name, (path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml"))
    )


def say(problem: object, status: int) -> int:
    """Print a problem as one line, once however many processes have it; returns the status."""
    if fail(str(problem)):
        print("error:", one_line(problem), file=sys.stderr)
    return status


if __name__ == "__main__":
    conduct(lambda: main(sys.argv[1:]))
