"""What a row of the benchmarks is, and how ours and the peer's take turns."""

import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, NamedTuple

import torch

from benchmarks.machine import matrix_turn
from modules.schema import one_line

Turn = Callable[[], object]
LEAST_ROUNDS, MOST_ROUNDS = 3, 25
SIDES = ("ours", "peer", "matrix")
BEHIND = 1.25  # times the seconds of its side's fastest: too slow to become it in later rounds


class Target(NamedTuple):
    """What a figure is to be. unit: of the value, for people."""

    bound: Literal["at most", "at least"]
    value: float
    unit: str = "×"

    def met_by(self, value: float) -> bool:
        return value <= self.value if self.bound == "at most" else value >= self.value


class Spread(NamedTuple):
    """Of several rounds: the median and the two quartiles around it."""

    median: float
    lower: float
    upper: float
    rounds: int

    @classmethod
    def of(cls, values: list[float]) -> "Spread":
        lower, median, upper = statistics.quantiles(values, n=4, method="inclusive")
        return cls(median, lower, upper, len(values))


@dataclass
class Found:
    """What a row found. figures: by name, those with a target among them. timings: of each contestant.

    facts: plain data beside them, such as sizes, the floor, or why a peer's variant did not run.
    """

    figures: dict[str, float] = field(default_factory=dict)
    timings: dict[str, Spread] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Comparison:
    """Seconds of each contestant by side and variant, round by round, and of the matrix product beside them.

    failed: variants that did not run, and why. operations: of one turn. matrix: seconds and operations of a
    matrix product that took its turn in every round.
    """

    ours: dict[str, list[float]]
    peers: dict[str, list[float]]
    failed: dict[str, str]
    operations: float | None
    matrix: tuple[list[float], float] | None

    def ratio(self) -> float:
        """Seconds of our fastest variant over those of the peer's fastest: medians."""
        return self._fastest(self.ours) / self._fastest(self.peers)

    def found(self, figure: Literal["ratio", "speed"] = "ratio", units: int | None = None) -> Found:
        """All of it; the figure is `ratio` (of seconds, lower is better) or `speed` (of pace, its inverse).

        units: pictures or samples of one turn, whose number per second is then told too.
        """
        sides = {"ours": self.ours, "peer": self.peers}
        named = {f"{side}: {name}": s for side, those in sides.items() for name, s in those.items()}
        value = self.ratio() if figure == "ratio" else 1 / self.ratio()
        facts: dict[str, Any] = {"failed": self.failed} if self.failed else {}
        if units is not None:
            facts["units_per_second"] = {name: units / statistics.median(s) for name, s in named.items()}
        return Found({figure: value}, {n: Spread.of(s) for n, s in named.items()}, facts | self._floor())

    def speed_against(self, peers: Iterable[str]) -> float:
        """How many times as fast as the fastest of these variants of the peer ours is: medians."""
        chosen = {name: self.peers[name] for name in peers if name in self.peers}
        return self._fastest(chosen) / self._fastest(self.ours)

    def matrix_share(self) -> float:
        """The share of the measured matrix rate that our fastest variant turns into useful operations."""
        return self._floor()["floor_s"] / self._fastest(self.ours)

    def _floor(self) -> dict[str, float]:
        if self.operations is None or self.matrix is None:
            return {}
        rate = self.matrix[1] / statistics.median(self.matrix[0])
        floor = self.operations / rate
        over = floor / self._fastest(self.peers)
        return {"operations": self.operations, "matrix_rate": rate, "floor_s": floor, "floor_ratio": over}

    @staticmethod
    def _fastest(side: Mapping[str, list[float]]) -> float:
        return min(statistics.median(seconds) for seconds in side.values())


@dataclass
class Run:
    """What a row is given: where it computes, how large, and for how long its rounds go on.

    small: tiny sizes, which show that a row runs and measure nothing. without: parts of names; variants so
    called are left out, such as those that take long to compile.
    """

    device: torch.device
    small: bool = False
    seconds: float = 60.0
    without: Sequence[str] = ()

    def compare(
        self,
        ours: Mapping[str, Turn],
        peers: Mapping[str, Turn],
        *,
        operations: float | None = None,
        precision: torch.dtype = torch.bfloat16,
        clock: Callable[[], float] = time.perf_counter,
        shorten: bool = False,
    ) -> Comparison:
        """Let all variants of both sides take turns, each once per round, every second round backwards.

        The first turn of each warms up and compiles; a variant that fails in it is left out, for as long as
        another of its side remains. A round that does not count comes next: new memory may double a step.
        Rounds go on for `seconds`. operations: of one turn; then a matrix product in this precision takes
        turns too, which gives the floor. clock: seconds so far; of the wall, or of the process where others'
        work is to count little. shorten: variants that are far behind their side's fastest in the first round
        take no further turns, where only the fastest count; at small sizes, where speed says nothing, all do.
        """
        failed: dict[str, str] = {}
        sides = [self._warmed(SIDES[0], ours, failed), self._warmed(SIDES[1], peers, failed)]
        turns = {(index, name): turn for index, side in enumerate(sides) for name, turn in side.items()}
        matrix, matrix_operations = matrix_turn(self.device, precision, self.small)
        if operations is not None:
            turns[2, "matrix"] = matrix
        for turn in turns.values():  # memory still finds its place
            self.timed(turn)
        spent: dict[tuple[int, str], list[float]] = {key: [] for key in turns}
        began = time.monotonic()
        most = LEAST_ROUNDS if self.small else MOST_ROUNDS
        for number in range(most):
            if number >= LEAST_ROUNDS and time.monotonic() - began > self.seconds:
                break
            for key in list(turns)[:: 1 if number % 2 == 0 else -1]:
                spent[key].append(self.timed(turns[key], clock))
            if shorten and not self.small and number == 0:
                for key in far_behind(spent):
                    del turns[key]
                    failed[f"{SIDES[key[0]]}: {key[1]}"] = f"far behind: {spent.pop(key)[0]:.3g} s"
        found = [{name: s for (side, name), s in spent.items() if side == index} for index in range(3)]
        beside = (found[2]["matrix"], matrix_operations) if operations is not None else None
        return Comparison(found[0], found[1], failed, operations, beside)

    def timed(self, turn: Turn, clock: Callable[[], float] = time.perf_counter) -> float:
        """Seconds of one turn, with all that it made the device do."""
        self.wait()
        began = clock()
        turn()
        self.wait()
        return clock() - began

    def wait(self) -> None:
        """Until the device has done what it was told to."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def _warmed(self, which: str, side: Mapping[str, Turn], failed: dict[str, str]) -> dict[str, Turn]:
        kept: dict[str, Turn] = {}
        for name, turn in side.items():
            if any(part in name for part in self.without):
                failed[f"{which}: {name}"] = "left out by --without"
                continue
            try:
                turn()
                self.wait()
                kept[name] = turn
            except Exception as error:  # whatever a compiler or a peer raises; told in the results
                if not kept and name == list(side)[-1]:
                    raise
                failed[f"{which}: {name}"] = one_line(error)
        if not kept:
            raise ValueError(f"no variant is left of {', '.join(side)}: --without {','.join(self.without)}")
        return kept


def far_behind(spent: Mapping[tuple[int, str], list[float]]) -> list[tuple[int, str]]:
    """The variants, by side and name, whose first turn took far longer than their side's fastest."""
    fastest: dict[int, float] = {}
    for (side, _), seconds in spent.items():
        fastest[side] = min(seconds[0], fastest.get(side, seconds[0]))
    return [key for key, seconds in spent.items() if seconds[0] > BEHIND * fastest[key[0]]]


Measure = Callable[[Run], Found]


@dataclass(frozen=True)
class Row:
    """One line of the table. what: in words. peer: what it is against. targets: by figure; may be empty.

    seconds: for how long its rounds go on, besides building and warming up.
    """

    name: str
    kind: Literal["cpu", "gpu"]
    what: str
    peer: str
    measure: Measure
    targets: Mapping[str, Target]
    seconds: float

    def about(self) -> dict[str, Any]:
        """What the results say of the row itself."""
        targets = {figure: target._asdict() for figure, target in self.targets.items()}
        return {"kind": self.kind, "what": self.what, "peer": self.peer, "targets": targets}


ROWS: dict[str, Row] = {}


def row(
    kind: Literal["cpu", "gpu"],
    what: str,
    peer: str = "",
    targets: Mapping[str, Target] | None = None,
    seconds: float = 60.0,
) -> Callable[[Measure], Measure]:
    """Make a function a row, by the function's name."""

    def register(measure: Measure) -> Measure:
        name = measure.__name__
        assert name not in ROWS, f"two rows are called {name}"
        ROWS[name] = Row(name, kind, what, peer, measure, targets or {}, seconds)
        return measure

    return register


def plain(found: Found) -> dict[str, Any]:
    """As it goes into a file."""
    timings = {name: spread._asdict() for name, spread in found.timings.items()}
    return {**asdict(found), "timings": timings}
