"""What visitors are told: mistakes of theirs, and failures of ours, in one line without paths."""

import re
import traceback

import torch

from modules.schema import one_line

TOO_LITTLE_MEMORY = "not enough memory; try a smaller picture, or fewer at once"
OURS = "that did not work; the terminal in which the page was started says more"
CPU_MEMORY = ("can't allocate memory", "not enough memory", "out of memory")
PATH = re.compile(r"(?:[A-Za-z]:)?[^\s'\",;:()]*[/\\][^\s'\",;:()]*")


class Refused(ValueError):
    """A wish that cannot be fulfilled: the message is for the visitor."""


class Stopped(Exception):
    """The visitor has cancelled."""


def in_words(error: BaseException) -> Exception:
    """What a visitor is to be told of an error; the unexpected goes to the terminal in full."""
    if isinstance(error, Refused | Stopped):
        return error
    message = str(error)
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or any(m in message for m in CPU_MEMORY):
        return Refused(TOO_LITTLE_MEMORY)
    if isinstance(error, ValueError | FileNotFoundError):
        return Refused(PATH.sub(lambda path: f"“{last_part(path[0])}”", one_line(error)))
    traceback.print_exception(error)
    return Refused(OURS)


def last_part(path: str) -> str:
    """Of a path, what a visitor may see."""
    return re.split(r"[/\\]", path.rstrip("/\\"))[-1]
