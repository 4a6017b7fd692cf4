"""How contestants take turns, and what is made of their seconds."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from benchmarks.frame import Comparison, Found, Run, Spread, Target, plain
from benchmarks.machine import describe, matrix_rate, memory_rate, versions

CPU = torch.device("cpu")


class Clock:
    """A clock that only the turns move on."""

    def __init__(self) -> None:
        self.now, self.order = 0.0, ""

    def __call__(self) -> float:
        return self.now

    def turn(self, name: str, *seconds: float) -> Callable[[], None]:
        """A turn that takes these seconds, one after the other, the last for ever; the first two warm up."""
        left = list(seconds)

        def take() -> None:
            self.order += name
            self.now += left.pop(0) if len(left) > 1 else left[0]

        return take


def broken() -> None:
    raise RuntimeError("no compiler\nfound")


def test_the_figure_is_the_ratio_of_the_medians_of_the_fastest() -> None:
    clock = Clock()
    ours = {"slow": clock.turn("s", 9.0), "fast": clock.turn("f", 50.0, 50.0, 1.0, 100.0, 2.0)}
    peers = {"eager": clock.turn("e", 8.0), "compiled": clock.turn("c", 4.0)}
    comparison = Run(CPU, small=True).compare(ours, peers, clock=clock)
    assert comparison.ours == {"slow": [9.0] * 3, "fast": [1.0, 100.0, 2.0]}
    assert comparison.ratio() == 0.5  # 2, the median, over 4; neither the warm-up nor a mean
    assert comparison.found("ratio").figures == {"ratio": 0.5}
    assert comparison.found("speed").figures == {"speed": 2.0}
    assert comparison.speed_against(["eager"]) == 4.0


def test_they_take_turns_and_every_second_round_goes_backwards() -> None:
    clock = Clock()
    contestants = {name: clock.turn(name, 1.0) for name in "ab"}
    Run(CPU, small=True).compare(contestants, {"c": clock.turn("c", 1.0)}, clock=clock)
    assert clock.order == 2 * "abc" + "abc" + "cba" + "abc"


def test_rounds_go_on_for_the_seconds_but_are_never_less_than_three() -> None:
    clock = Clock()
    comparison = Run(CPU, seconds=0.0).compare(
        {"a": clock.turn("a", 1.0)}, {"b": clock.turn("b", 1.0)}, clock=clock
    )
    assert len(comparison.ours["a"]) == 3
    comparison = Run(CPU, seconds=60.0).compare(
        {"a": clock.turn("a", 1.0)}, {"b": clock.turn("b", 1.0)}, clock=clock
    )
    assert len(comparison.ours["a"]) == 25  # these take no time at all


def test_a_variant_that_fails_is_left_out_and_told() -> None:
    clock = Clock()
    peers = {"eager": clock.turn("e", 2.0), "compiled": broken}
    found = Run(CPU, small=True).compare({"a": clock.turn("a", 1.0)}, peers, clock=clock).found()
    assert found.figures == {"ratio": 0.5}
    assert found.facts["failed"] == {"peer: compiled": "no compiler found"}
    assert set(found.timings) == {"ours: a", "peer: eager"}


def test_where_only_the_fastest_count_those_far_behind_it_take_one_turn() -> None:
    clock = Clock()
    ours = {"slow": clock.turn("s", 1.3), "near": clock.turn("n", 1.2), "fast": clock.turn("f", 1.0)}
    peers = {"alone": clock.turn("a", 9.0)}
    comparison = Run(CPU, seconds=0).compare(ours, peers, clock=clock, shorten=True)
    assert clock.order == 3 * "snfa" + "afn" + "nfa"
    assert set(comparison.ours) == {"near", "fast"}
    assert comparison.failed == {"ours: slow": "far behind: 1.3 s"}
    assert comparison.ratio() == 1 / 9


def test_at_small_sizes_even_those_far_behind_show_that_they_run() -> None:
    clock = Clock()
    ours = {"slow": clock.turn("s", 9.0), "fast": clock.turn("f", 1.0)}
    comparison = Run(CPU, small=True).compare(ours, {"a": clock.turn("a", 1.0)}, clock=clock, shorten=True)
    assert set(comparison.ours) == {"slow", "fast"} and comparison.failed == {}


def test_a_side_without_any_variant_ends_the_row() -> None:
    with pytest.raises(RuntimeError, match="no compiler"):
        Run(CPU, small=True).compare({"a": broken}, {"b": lambda: None})


def test_variants_can_be_left_out_by_name() -> None:
    clock = Clock()
    run = Run(CPU, small=True, without=["compiled"])
    peers = {"eager": clock.turn("e", 2.0), "compiled by blocks": broken}
    comparison = run.compare({"a": clock.turn("a", 1.0)}, peers, clock=clock)
    assert comparison.failed == {"peer: compiled by blocks": "left out by --without"}
    with pytest.raises(ValueError, match="no variant is left of compiled: --without compiled"):
        run.compare({"compiled": broken}, peers)


def test_the_floor_is_the_time_of_as_many_operations_of_a_matrix_product() -> None:
    comparison = Comparison(
        {"a": [4.0, 4.0]}, {"b": [8.0, 8.0]}, {}, operations=60.0, matrix=([2.0, 3.0, 1.0], 40.0)
    )
    facts = comparison.found("ratio", units=2).facts
    assert facts["matrix_rate"] == 20.0
    assert facts["floor_s"] == 3.0
    assert facts["floor_ratio"] == 3.0 / 8.0
    assert comparison.matrix_share() == 0.75
    assert facts["units_per_second"] == {"ours: a": 0.5, "peer: b": 0.25}


def test_a_matrix_product_takes_turns_where_operations_are_given() -> None:
    comparison = Run(CPU, small=True).compare(
        {"a": lambda: None}, {"b": lambda: None}, operations=1.0, precision=torch.float32
    )
    assert comparison.matrix is not None
    assert len(comparison.matrix[0]) == 3
    assert set(comparison.ours) == {"a"}
    assert set(comparison.peers) == {"b"}


def test_spread_is_the_median_with_the_quartiles_around_it() -> None:
    assert Spread.of([5.0, 1.0, 2.0, 4.0, 3.0]) == Spread(3.0, 2.0, 4.0, 5)


@pytest.mark.parametrize(
    ("bound", "met"), [("at most", [True, True, False]), ("at least", [False, True, True])]
)
def test_targets(bound: Any, met: list[bool]) -> None:
    assert [Target(bound, 0.5).met_by(value) for value in (0.4, 0.5, 0.6)] == met


def test_what_is_found_is_plain_data() -> None:
    found = Found({"ratio": 0.5}, {"ours: a": Spread(1.0, 0.9, 1.1, 3)}, {"px": 64})
    timing = {"median": 1.0, "lower": 0.9, "upper": 1.1, "rounds": 3}
    assert plain(found) == {"figures": {"ratio": 0.5}, "timings": {"ours: a": timing}, "facts": {"px": 64}}


def test_the_machine_is_described() -> None:
    machine = describe(CPU)
    assert machine["processor"]
    assert machine["cores"] >= 1
    assert machine["memory_gb"] > 0
    assert versions()["torch"] == torch.__version__.partition("+")[0]
    assert matrix_rate(CPU, torch.float32, small=True) > 0
    assert memory_rate(CPU, small=True) > 0
