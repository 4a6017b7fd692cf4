"""A row in a process of its own: with nothing of other rows in its memory, and unable to end them."""

import multiprocessing
import traceback
from collections.abc import Mapping
from multiprocessing.connection import Connection
from typing import Any

# What takes seconds to import, once for all rows; nothing of it may compute, for threads are not forked.
PRELOADED = ["diffusers.models.unets.unet_stable_cascade", "torch._inductor.compile_fx", "benchmarks.rows"]


class RowFailed(Exception):
    """A row's error, in one line and whole."""

    def __init__(self, line: str, trace: str = "") -> None:
        super().__init__(line)
        self.trace = trace


def run_row(name: str, device: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Measure a row in a fresh process and return what it found and the rates beside it. Raises RowFailed.

    settings: small and, if rounds are to go on for another time than the row's own, seconds.
    """
    # A process that has used a GPU cannot be forked; one that has only loaded packages can.
    context: Any = multiprocessing.get_context("spawn" if device == "cuda" else "forkserver")
    if device != "cuda":
        context.set_forkserver_preload(PRELOADED)
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_measure, args=(sender, name, device, dict(settings)))
    process.start()
    sender.close()
    try:
        answer = receiver.recv()
    except EOFError:
        answer = None
    process.join()
    if answer is None:
        raise RowFailed(f"{name}: its process ended with {process.exitcode} (killed for memory?)")
    if "error" in answer:
        raise RowFailed(f"{name}: {answer['error']}", answer["trace"])
    return answer


def _measure(sender: Connection, name: str, device: str, settings: dict[str, Any]) -> None:
    import torch

    from benchmarks.frame import Run, plain
    from benchmarks.machine import rates
    from benchmarks.rows import all_rows
    from dataset_tools.children import follow_parent
    from modules.host_memory import keep_freed
    from modules.schema import one_line

    follow_parent(ignored=())
    place = torch.device(device)
    keep_freed(place)  # as our programs do; peers in the same process have it, too
    if settings["small"]:
        torch.compiler.set_stance("force_eager")  # compiling takes a minute, whatever the size
    try:
        row = all_rows()[name]
        found = row.measure(Run(place, **{"seconds": row.seconds, **settings}))
        sender.send({"found": plain(found), "rates": rates(place, settings["small"])})
    except Exception as error:
        line = one_line(f"{type(error).__name__}: {error}")
        sender.send({"error": line, "trace": traceback.format_exc()})
