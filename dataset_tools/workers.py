"""Processes that make the items of a data set ahead of where they are needed, and the hand-over of these."""

import multiprocessing
import pickle
import queue
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from multiprocessing.util import Finalize
from typing import Any, Generic, Protocol, TypeVar

import torch
import torch.multiprocessing  # lets tensors be sent as shared memory

from dataset_tools.children import follow_parent, held_back, start_method

if sys.platform == "win32":
    from multiprocessing.connection import PipeConnection as Connection
else:
    from multiprocessing.connection import Connection

Item_co = TypeVar("Item_co", covariant=True)
Item = TypeVar("Item")

# Some launchers signal all processes of a run; items are needed until it has saved itself.
IGNORED = ("SIGINT", "SIGTERM", "SIGUSR1")

_is_worker = False


class DataSet(Protocol[Item_co]):
    """What the workers make items of; goes to other processes, so it is plain data."""

    def items(self, worker: int, num_workers: int) -> Iterator[Item_co]:
        """Those that this worker makes, in order; it may come to an end before the others do."""


class Workers(Generic[Item]):
    """An iterator over the items of all workers in turns, made from now on, before they are asked for.

    ahead: items that each worker makes ahead of what was taken. ready: called with each item beside the
    consumer, in a thread of this process, so what it does costs no waiting (pinning memory, for instance).
    An error of a worker is raised by `next`, in the place of its item; OSError where a worker was killed.
    Close it when it is not needed any more: that ends the processes at once. So does the end of this process,
    and letting go of all references.
    """

    def __init__(
        self,
        data: DataSet[Item],
        num_workers: int,
        ahead: int,
        ready: Callable[[Item], Item],
        context: BaseContext | None = None,
    ):
        context = context or multiprocessing.get_context(start_method())
        self._pipes: list[Connection] = []
        processes: list[BaseProcess] = []
        threads: list[threading.Thread] = []
        self._finalizer = Finalize(self, _end, (self._pipes, processes, threads), exitpriority=100)
        self._received: queue.SimpleQueue[tuple[int, Item] | BaseException] = queue.SimpleQueue()
        for number in range(num_workers):
            own, others = context.Pipe()
            self._pipes.append(own)
            work = (data, number, num_workers, ahead, others)
            processes.append(context.Process(target=_work, args=work, daemon=True))  # type: ignore[attr-defined]
            with held_back(IGNORED):  # one that comes before it is ignored would end the process
                processes[-1].start()
            others.close()  # else nobody would notice the end of the process
        # After the processes: forked, they would inherit what it has just locked. It holds no reference to
        # this object, whose end it would prevent.
        passing_on = (self._pipes, processes, self._received, ready)
        threads.append(threading.Thread(target=_receive, args=passing_on, daemon=True))
        threads[-1].start()

    def __iter__(self) -> Iterator[Item]:
        return self

    def __next__(self) -> Item:
        found = self._received.get()
        if isinstance(found, BaseException):
            self._received.put(found)  # it is all that comes from now on
            raise found
        number, item = found
        with suppress(OSError):  # of a process that has died; its turn will tell
            self._pipes[number].send_bytes(b".")
        return item

    def close(self) -> None:
        """End the processes; what they have made and nobody has taken is lost."""
        self._finalizer()


def is_worker() -> bool:
    """Whether this process makes items for another one."""
    return _is_worker


def _work(data: DataSet[Any], number: int, num_workers: int, ahead: int, pipe: Connection) -> None:
    """What a worker does. It sends (item, None) and, in the end, (None, the error or None)."""
    global _is_worker
    _is_worker = True
    follow_parent(IGNORED)
    torch.set_num_threads(1)  # the parent's, if it was forked, stayed behind
    room, error = ahead, None
    with suppress(OSError, EOFError):  # nobody listens any more
        try:
            for item in data.items(number, num_workers):
                pipe.send((item, None))
                room -= 1
                while room == 0 or pipe.poll():
                    room += len(pipe.recv_bytes())
        except Exception as found:
            error = _sendable(found, f"in data worker {number + 1} of {num_workers}")
        pipe.send((None, error))
        while True:  # what was sent last may still have to be fetched from this process
            pipe.recv_bytes()


def _sendable(error: Exception, where: str) -> Exception:
    """The error with its traceback as a note, in a form that another process can read."""
    error.add_note(f"{where}:\n{''.join(traceback.format_exception(error))}")
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # whatever somebody's own kind of error does then
        return RuntimeError("\n".join(error.__notes__))
    return error


def _receive(
    pipes: Sequence[Connection],
    processes: Sequence[BaseProcess],
    received: "queue.SimpleQueue[tuple[int, Item] | BaseException]",
    ready: Callable[[Item], Item],
) -> None:
    """Pass on what the workers send, in turns, to the end of all or to the first error."""
    turns = deque(range(len(pipes)))
    try:
        while turns:
            number = turns[0]
            try:
                item, error = pipes[number].recv()
            except Exception as broken:  # in the middle of a tensor it can be of any kind
                raise OSError(_death(processes[number], number, len(pipes))) from broken
            if error is not None:
                raise error
            if item is None:
                turns.popleft()
                continue
            received.put((number, ready(item)))
            turns.rotate(-1)
    except BaseException as error:
        received.put(error)
    else:
        received.put(StopIteration())


def _death(process: BaseProcess, number: int, num_workers: int) -> str:
    process.join(1)
    code = process.exitcode
    how = f"was killed by signal {-code}" if code is not None and code < 0 else f"ended (exit status {code})"
    return (
        f"data worker {number + 1} of {num_workers} {how}, perhaps for want of memory;"
        " try a smaller data.num_workers or data.prefetch"
    )


def _end(
    pipes: Sequence[Connection], processes: Sequence[BaseProcess], threads: Sequence[threading.Thread]
) -> None:
    """At once: workers have nothing to finish, and one may be waiting for storage that does not answer."""
    for process in processes:
        if process.pid is not None:
            process.kill()
            process.join()
    for thread in threads:
        if thread is not threading.current_thread():  # which may be collecting garbage
            thread.join()  # it finds the ends of the pipes
    for pipe in pipes:
        pipe.close()
