"""Work on the items of a list in other processes, some items ahead of where the result is needed."""

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from types import TracebackType
from typing import Generic, Self, TypeVar

from dataset_tools.children import follow_parent

Item = TypeVar("Item")
Result = TypeVar("Result")


class Lookahead(Generic[Item, Result]):
    """`lookahead[i]` is `work(items[i])`, computed by worker processes while earlier results are used.

    work: a function that processes can import. num_workers: 0 works in this process, on what is asked for.
    At most `4 * num_workers` results wait, so memory does not grow with the list. Use as a context manager.
    """

    def __init__(self, work: Callable[[Item], Result], items: Sequence[Item], num_workers: int):
        self._work = work
        self._items = items
        self._depth = max(1, 4 * num_workers)
        self._futures: dict[int, Future[Result]] = {}
        self._pool = None
        if num_workers:
            # spawn: a forked child would inherit locks of other threads, such as the progress bar's.
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(num_workers, context, initializer=follow_parent)

    def __getitem__(self, index: int) -> Result:
        """Return the result of an item; asking for an index forgets those before it."""
        for old in [i for i in self._futures if not index <= i < index + self._depth]:
            self._futures.pop(old).cancel()
        try:
            for i in range(index, min(index + self._depth, len(self._items))):
                if i not in self._futures:
                    self._futures[i] = self._start(self._items[i])
            return self._futures[index].result()
        except BrokenProcessPool as error:
            raise OSError("a worker process died, perhaps for want of memory; try fewer --workers") from error

    def _start(self, item: Item) -> "Future[Result]":
        if self._pool:
            return self._pool.submit(self._work, item)
        done: Future[Result] = Future()
        done.set_result(self._work(item))
        return done

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        if self._pool:
            self._pool.shutdown(cancel_futures=True)
