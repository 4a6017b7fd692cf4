"""Checks a command of the guides without running it: its module, options, experiment and settings exist.

The real command lines are read, up to where the work would begin.
"""

import argparse
import contextlib
import functools
import re
import runpy
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from torch.distributed.run import get_args_parser

import inference.__main__ as inference_command
import train.__main__ as train_command
from modules import key_values, leaving
from modules.schema import from_plain
from tests.guides.pages import ROOT, words
from train.config import config_from_plain

# What stands for something that the reader puts in, and so cannot be checked: NAME, …, a path of one's own.
PLACEHOLDER = re.compile(r"…|\.\.\.|\b[A-Z][A-Z_]{2,}\b")
# Programs that are not ours.
FOREIGN = re.compile(
    "pip|source|git|cd|img2dataset|tensorboard|wandb|mkdocs|docker|cog|curl|export|tar|aws|scontrol|squeue|sacct|"
    "tail|head|mkdir|cp|mv|ls|cat|echo|nvidia-smi|dmesg|jupyter|chromium|python3|apt-get|brew|sudo|sha256sum"
)
# Signs of a module that reads its command line by the means that `stopping` knows.
READS = re.compile(r"\bParser\(|settings_from\(|parse_out\(|from scripts.estimating import main")
INSTALLED = {"pip", "venv", "http.server", "pytest", "ipykernel", "cog.server.http"}
ENVIRONMENT = re.compile(r"[A-Z_]+=.*")


class Read(Exception):
    """A command line was read to its end."""


@functools.cache  # pages repeat one another, and Hydra takes a third of a second
def check(command: str) -> None:
    """Raise AssertionError or ValueError, which say what is wrong, for a command that could not be meant."""
    parts = [word for word in words(command)]
    while parts and (ENVIRONMENT.fullmatch(parts[0]) or parts[0] in ("nice", "$")):
        parts = parts[1:]
    if not parts or FOREIGN.fullmatch(parts[0]) or PLACEHOLDER.search(parts[0]):
        return
    if parts[0] == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        wanted = {word for word in parts[1:] if "=" not in word}
        assert wanted <= set(targets), f"no such target of make: {wanted - set(targets)}"
    elif parts[0] == "torchrun":
        options = get_args_parser().parse_args(parts[1:])
        if PLACEHOLDER.search(options.training_script):
            return
        assert options.module, "torchrun: expected -m"
        check_module(options.training_script, options.training_script_args)
    elif parts[0] in ("sbatch", "srun"):
        check_job(parts)
    elif parts[:2] == ["python", "-m"]:
        check_module(parts[2], parts[3:])
    else:
        raise AssertionError(f"{parts[0]}: neither a command of ours nor a program that is known here")


def check_job(parts: list[str]) -> None:
    """A command for SLURM: its script is there, or it calls python -m."""
    if "python" in parts:
        check(" ".join(f"'{part}'" for part in parts[parts.index("python") :]))
    else:
        scripts = [word for word in parts[1:] if not word.startswith("-")][:1]
        assert scripts and (ROOT / scripts[0]).is_file(), f"{parts[0]}: no script among {parts[1:]}"
        check_module("train", parts[parts.index(scripts[0]) + 1 :])


def check_module(module: str, arguments: Sequence[str]) -> None:
    path = ROOT / module.replace(".", "/")
    if module in INSTALLED:
        return
    assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file(), f"no module {module}"
    if {"--help", "--list"} & set(arguments) or PLACEHOLDER.search(" ".join(arguments)):
        return
    if module.startswith("tests."):
        return
    if module == "train":
        check_composed(train_command, "attempt", settings_of_training, arguments)
    elif module == "inference":
        check_composed(inference_command, "attempt", settings_of_drawing, arguments)
    else:
        check_read(module, arguments)
        settings = [word for word in arguments if "=" in word and not word.startswith("-")]
        if module == "scripts.estimate":
            check_composed(train_command, "attempt", settings_of_training, settings)


def settings_of_training(settings: Any) -> int:
    """Check the settings as a training would; the files that they name need not be there."""
    plain = train_command.plain(settings)
    random = {"weights": None, "allow_random": True}
    model = plain["model"].items()
    plain["model"] = {key: entry | random if "weights" in entry else entry for key, entry in model}
    if not plain["data"]["sources"]:
        plain["data"]["shards"] = plain["data"]["shards"] or "data/mine"
    with contextlib.suppress(FileNotFoundError):  # what a filter names need not be there either
        config_from_plain(plain)
    return 0


def settings_of_drawing(settings: Any) -> int:
    from omegaconf import OmegaConf

    from inference.config import Config

    from_plain(Config, OmegaConf.to_container(settings, resolve=True))  # type: ignore[arg-type]
    return 0


def check_composed(command: Any, name: str, checked: Callable[[Any], int], arguments: Sequence[str]) -> None:
    """Let a command that Hydra composes read its settings; they are checked, not carried out."""
    told = [word for word in arguments if word not in ("--cfg", "job")]
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as place:
        patch.chdir(place)  # where Hydra notes what a sweep was
        patch.setattr(command, name, checked)
        patch.setattr(sys, "argv", ["guide"])
        assert command.main(told) == 0, f"refused: {' '.join(arguments)}"


def check_read(module: str, arguments: Sequence[str]) -> None:
    """Run a module until its command line has been read; of one that would go on to its work, nothing."""
    path = ROOT / module.replace(".", "/")
    file = path.with_suffix(".py") if path.with_suffix(".py").is_file() else path / "__main__.py"
    if not READS.search(file.read_text(encoding="utf-8")):
        return
    with pytest.MonkeyPatch.context() as patch, stopping(patch):
        patch.setattr(sys, "argv", [module, *arguments])
        try:
            runpy.run_module(module, run_name="__main__", alter_sys=False)
        except Read:
            return
        except SystemExit as end:
            raise AssertionError(f"{module}: ended with {end.code}") from end
    raise AssertionError(f"{module}: read no command line")


@contextmanager
def stopping(patch: pytest.MonkeyPatch) -> Iterator[None]:
    """Within the context reading a command line, of options or KEY=VALUE, ends in Read if it succeeds."""
    parse, depth = argparse.ArgumentParser.parse_known_args, [0]

    def parse_known_args(self: Any, args: Any = None, namespace: Any = None) -> Any:
        depth[0] += 1
        try:
            found, rest = parse(self, args, namespace)
        finally:
            depth[0] -= 1
        if depth[0]:
            return found, rest
        if wrong := [word for word in rest if word.startswith("-") or "=" not in word]:
            self.error(f"unrecognized arguments: {' '.join(wrong)}")
        raise Read

    def settings_read(kind: Any, plain: Any, *more: Any) -> Any:
        from_plain(kind, plain, *more)
        raise Read

    patch.setattr(argparse.ArgumentParser, "parse_known_args", parse_known_args)
    patch.setattr(key_values, "from_plain", settings_read)
    patch.setattr(leaving, "leave_at_once", sys.exit)  # these tests are to go on
    yield
