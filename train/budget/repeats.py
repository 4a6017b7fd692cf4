"""Blocks that come again and again in a network: one of them is counted, for all that do the same.

Of a run of equal groups of blocks (Stage C's convolution, timestep, attention) the first, the second and the
last are computed: the ends, for what lies beside them differs, and one for all in between, whose bytes and
operations are taken as often as there are such groups, forward and backward.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn

from train.budget.ledger import Ledger

LONGEST_PERIOD = 8  # blocks of a group
FEWEST = 4  # groups of a run, of which then one need not be computed


class Call(NamedTuple):
    """One call of a block.

    work: stands for all its operations, with sizes. keeps_size: its result is like its input. follows: its
    input is what the block before it gave. learns: whether its input and its result depend on what learns.
    """

    work: int
    keeps_size: bool
    follows: bool
    learns: tuple[bool, bool]


class Run(NamedTuple):
    """`groups` equal ones of `period` blocks each, one after another, from the block `first` on."""

    first: int
    period: int
    groups: int

    @property
    def counted(self) -> range:
        """The blocks of the second group, which stand for those of all groups but the first and the last."""
        return range(self.first + self.period, self.first + 2 * self.period)

    @property
    def skipped(self) -> range:
        """The blocks that are not computed."""
        return range(self.counted.stop, self.first + (self.groups - 1) * self.period)

    @property
    def times(self) -> int:
        """For how many groups the second one stands."""
        return self.groups - 2


class Recorder:
    """Notes what blocks do when they are called."""

    def __init__(self, units: Sequence[nn.Module], ledger: Ledger) -> None:
        self.ledger = ledger
        self.calls: list[list[Call]] = [[] for _ in units]
        self._last: tuple[int, Any] = (-2, None)  # the block that was called last, and what it gave

    def around(self, place: int, forward: Callable[..., Any]) -> Callable[..., Any]:
        """The forward of the block at a place, noted."""

        def noted(*given: Any, **others: Any) -> Any:
            follows = bool(given) and self._last[0] == place - 1 and self._last[1] is given[0]
            self.ledger.work = 0
            found = forward(*given, **others)
            keeps = bool(given) and same_size(given[0], found)
            learns = bool(given) and asks(given[0]), asks(found)
            self.calls[place].append(Call(self.ledger.work, keeps, follows, learns))
            self._last = place, found
            return found

        return noted


class Skipper:
    """Lets blocks pass that others stand for."""

    def __init__(self, runs: Sequence[Run], ledger: Ledger) -> None:
        self.ledger = ledger
        self._skipped = {place for run in runs for place in run.skipped}
        self._times = {place: run.times for run in runs for place in run.counted}
        self._begins = {run.counted.start for run in runs}
        self._lasts = {run.counted.stop - 1 for run in runs}
        self._ends = {run.counted.stop for run in runs}

    def times(self, place: int) -> int:
        """For how many blocks the one at a place stands."""
        return self._times.get(place, 1)

    def around(self, place: int, forward: Callable[..., Any]) -> Callable[..., Any]:
        """The forward of the block at a place; or what does nothing where another stands for it."""

        def counted(x: Tensor, *given: Any, **others: Any) -> Any:
            if place in self._ends:
                self.ledger.end_repeated()
            if place in self._skipped:
                return x
            if place in self._begins:
                self.ledger.begin_repeated(self._times[place])
                if x.requires_grad:  # of all groups the gradient of the input comes last
                    x.register_hook(lambda _: self.ledger.end_repeated())
            found = forward(x, *given, **others)
            if place in self._lasts and found.requires_grad:
                found.register_hook(lambda _, times=self._times[place]: self.ledger.begin_repeated(times))
            return found

        return counted if place in self._times or place in self._skipped else forward


def find_runs(calls: Sequence[Sequence[Call]]) -> list[Run]:
    """Where blocks do, in all their calls, what those before them did. calls: of each block, in order."""
    keys = [tuple(call._replace(follows=True) for call in each) for each in calls]
    may_join = [bool(each) and all(call.follows for call in each) for each in calls]
    may_pass = [bool(each) and all(call.keeps_size for call in each) for each in calls]
    found: list[Run] = []
    place = 0
    while place < len(calls):
        runs = [run_from(place, period, keys, may_join, may_pass) for period in range(1, LONGEST_PERIOD + 1)]
        best = max(runs, key=lambda run: (len(run.skipped), -run.period))
        if best.groups >= FEWEST:
            found.append(best)
            place += best.period * best.groups
        else:
            place += 1
    return found


def run_from(
    first: int, period: int, keys: Sequence[Any], may_join: Sequence[bool], may_pass: Sequence[bool]
) -> Run:
    """The longest run with groups of this many blocks that begins at a block."""
    end = first
    while end < len(keys) and may_pass[end] and (end == first or may_join[end]):
        if end - first >= period and keys[end] != keys[end - period]:
            break
        end += 1
    return Run(first, period, (end - first) // period)


def same_size(given: Any, found: Any) -> bool:
    """Whether two tensors could be taken for each other."""
    if not (isinstance(given, Tensor) and isinstance(found, Tensor)):
        return False
    return (given.shape, given.dtype, given.stride()) == (found.shape, found.dtype, found.stride())


def asks(given: Any) -> bool:
    """Whether a tensor that gradients pass through."""
    return isinstance(given, Tensor) and given.requires_grad


def owners(units: Sequence[nn.Module]) -> Mapping[int, int]:
    """Parameters' numbers -> places of the blocks that hold them."""
    return {id(p): place for place, unit in enumerate(units) for p in unit.parameters()}
