"""`python -m inference prompt="a red circle" run=outputs/demo`: Hydra composes the settings."""

import os

# Before torch is loaded: what a Mac's GPU (MPS) has no code for, its CPU computes.
os.environ.setdefault("PYTORCH_ENABLE_MPS_FALLBACK", "1")
# Hydra hands errors on instead of printing them; `main` says them in one line.
os.environ["HYDRA_FULL_ERROR"] = "1"

import re
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import hydra
import torch
from hydra._internal import hydra as hydra_calls
from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from inference.batch import draw_lines
from inference.command import carry_out
from inference.config import Config
from modules.hydra_options import options_last
from modules.hydra_words import in_words, unreadable
from modules.overrides import OPEN, check_arguments, take_targets, targets_checked, with_escaped_keys
from modules.schema import from_plain, one_line

CONFIG_FILE = Path(__file__).parents[1] / "configs" / "inference.yaml"
TEXT_KEYS = ("prompt", "negative_prompt")
OUT_OF_MEMORY = (
    "out of memory; try offload=stage, then offload=block or quantize=nf4, a smaller batch_size or picture"
)
FAILURE, MISTAKE, INTERRUPTED = 1, 2, 130  # exit status
USAGE = """\
python -m inference prompt="a red circle" run=outputs/demo [KEY=VALUE ...]
python -m inference prompt="a [pillar]" run=outputs/demo loras=[outputs/demo/lora]
python -m inference task=inpaint image=photo.png mask=mask.png prompt="a red circle" run=outputs/demo
torchrun --nproc-per-node=8 -m inference prompts_file=prompts.jsonl run=outputs/demo output=outputs/many
python -m inference recreate=outputs/pictures/a-red-circle_5.png
python -m inference --multirun stage_c.guidance=2,4,8 prompt=... run=...

The settings and their defaults:
"""


def main(arguments: Sequence[str]) -> int:
    """Run the command line; returns the exit status. A mistake in the settings is one line and status 2."""
    if {"--help", "-h"} & set(arguments):
        print(USAGE + CONFIG_FILE.read_text(encoding="utf-8").partition("\nhydra:")[0])
        return 0
    statuses: list[int] = []  # of the jobs: several with --multirun, none with --cfg
    failed: list[Exception] = []  # what jobs ended with that is no mistake in the settings

    def job(settings: DictConfig) -> None:
        try:
            statuses.append(attempt(settings))
        except Exception as error:
            failed.append(error)
            raise

    # Stored by itself, not found in its folder: the groups of training lie there, and run= would choose one.
    ConfigStore.instance().store("inference", OmegaConf.load(CONFIG_FILE))
    try:
        arguments, allowed = take_targets(arguments)
        arguments = options_last(arguments)
        sys.argv[1:] = [settable(argument) for argument in arguments]
        check_arguments(arguments, TEXT_KEYS, allowed)
        with targets_checked(hydra_calls, partial(OmegaConf.to_container, resolve=True), allowed):
            hydra.main(version_base="1.3", config_path=None, config_name="inference")(job)()
    except OverrideParseException as error:
        return say(unreadable(error.override), MISTAKE)
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        if error in failed:
            raise
        return say(in_words(str(error)), MISTAKE)
    return max(statuses, default=0)


def attempt(settings: DictConfig) -> int:
    """Make the pictures that the settings ask for; returns the exit status."""
    try:
        config = from_plain(Config, OmegaConf.to_container(settings, resolve=True))  # type: ignore[arg-type]
        if config.prompts_file is not None and config.recreate is None:
            return FAILURE if draw_lines(config) else 0
        carry_out(config)
    except torch.OutOfMemoryError:
        return say(OUT_OF_MEMORY, FAILURE)
    except (ValueError, OSError, OmegaConfBaseException) as error:
        return say(in_words(one_line(error)), MISTAKE)
    except KeyboardInterrupt:
        return say("stopped; the pictures that were finished are written", INTERRUPTED)
    return 0


def settable(argument: str) -> str:
    """An override that Hydra takes in any case: for a wrong key, from_plain has the better words.

    A prompt is quoted, so that commas, brackets and quotes in it are no syntax; one that is quoted already,
    or a list, is left as it is.
    """
    match = re.fullmatch(r"\+{0,2}([A-Za-z_][\w.]*)=(.*)", argument, flags=re.DOTALL)
    if not match or match[1].startswith("hydra.") and not match[1].startswith(f"hydra.{OPEN}."):
        return argument
    key, value = match.groups()
    if key in TEXT_KEYS and value[:1] not in ("'", '"') and not is_list(value):
        value = re.sub(r"\\+$", lambda tail: 2 * tail[0], value)  # else it would escape the closing quote
        value = "'" + value.replace("'", "\\'").replace("${", "\\${") + "'"
        return f"++{key}={value}"
    return f"++{key}={with_escaped_keys(value)}"


def is_list(value: str) -> bool:
    """Whether a value is a list in Hydra's syntax, and not a prompt with a trained token such as [pillar]."""
    depth, closed = 0, False
    for character in value:
        if closed:
            return False
        depth += {"[": 1, "]": -1}.get(character, 0)
        closed = depth == 0
    return closed and any(character in value for character in ",'\"")


def say(problem: object, status: int) -> int:
    """Print a problem as one line; returns the status."""
    print("error:", one_line(problem), file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
