"""Win rates and their intervals, by their laws."""

import math
import random

import pytest

from inference.compare.plan import Plan, Question
from inference.compare.rates import as_plain, design_effect, rate_of, rates, wilson
from inference.compare.votes import Vote

FLIPPED = {"A": "B", "B": "A", "tie": "tie"}


def votes_of(a: int, b: int, ties: int = 0) -> list[tuple[str, str]]:
    """One vote on each of so many prompts."""
    return [(f"prompt {i}", choice) for i, choice in enumerate(["A"] * a + ["B"] * b + ["tie"] * ties)]


def test_the_interval_is_wilsons() -> None:
    # Solutions of |p - x/n| = z sqrt(p (1 - p) / n), which defines it.
    for rate, number in ((0.5, 10), (0.9, 30), (0.0, 5), (1.0, 5)):
        for end in wilson(rate, number):
            assert abs(end - rate) == pytest.approx(1.959964 * math.sqrt(end * (1 - end) / number), abs=1e-5)


def test_it_shrinks_with_the_number_of_votes() -> None:
    widths = [(rate := rate_of(votes_of(6 * n, 4 * n))).high - rate.low for n in (1, 2, 5, 20, 100)]
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] == pytest.approx(widths[-2] / math.sqrt(5), rel=0.05)


def test_it_is_symmetric_in_the_sides() -> None:
    rng = random.Random(0)
    for _ in range(50):
        votes = [
            (f"{rng.randrange(12)}", rng.choice(["A", "A", "B", "tie"])) for _ in range(rng.randrange(1, 60))
        ]
        there, back = rate_of(votes), rate_of([(prompt, FLIPPED[choice]) for prompt, choice in votes])
        assert there.rate == pytest.approx(1 - back.rate)
        assert there.low == pytest.approx(1 - back.high) and there.high == pytest.approx(1 - back.low)
        assert (there.wins_a, there.ties) == (back.wins_b, back.ties)
        assert FLIPPED.get(there.winner, "") == back.winner


def test_ties_count_half() -> None:
    assert rate_of(votes_of(0, 0, 10)).rate == 0.5
    assert rate_of(votes_of(4, 2, 4)).rate == pytest.approx(0.6)


def test_a_side_wins_where_the_interval_leaves_out_one_half() -> None:
    assert rate_of(votes_of(9, 1)).winner == "A"
    assert rate_of(votes_of(1, 9)).winner == "B"
    assert rate_of(votes_of(6, 4)).winner == ""


def test_many_votes_on_one_prompt_say_no_more_than_one() -> None:
    one = rate_of([("a", "A")])
    many = rate_of([("a", "A")] * 50)
    assert many.effective == 1 and (many.low, many.high) == (one.low, one.high)


def test_votes_that_agree_within_prompts_count_for_less() -> None:
    apart = rate_of(votes_of(30, 30))
    agreeing = rate_of([(f"{i}", "A" if i % 2 else "B") for i in range(20)] * 3)
    assert apart.effective == pytest.approx(60)
    assert agreeing.effective == pytest.approx(20 * 19 / 20)
    assert agreeing.high - agreeing.low > apart.high - apart.low


def test_the_design_effect_is_at_least_one() -> None:
    assert design_effect([[1, 0], [0, 1], [1, 0]], 0.5) == 1
    assert design_effect([[1.0], [1.0]], 1.0) == 1


@pytest.mark.parametrize("truth", [0.5, 0.7, 0.9])
@pytest.mark.parametrize("voters", [1, 4])
def test_it_covers_the_truth_about_as_often_as_it_says(truth: float, voters: int) -> None:
    """40 prompts, which differ in how often A is preferred; every voter sees them all."""
    rng = random.Random(int(100 * truth) + voters)
    covered, rounds = 0, 600
    for _ in range(rounds):
        votes = []
        for prompt in range(40):
            own = rng.betavariate(2 * truth, 2 * (1 - truth))
            votes += [(str(prompt), "A" if rng.random() < own else "B") for _ in range(voters)]
        rate = rate_of(votes)
        covered += rate.low <= truth <= rate.high
    assert 0.92 <= covered / rounds <= 0.985  # 95 %; by chance alone within 2 % of that


def test_votes_of_a_prompt_taken_for_independent_would_cover_too_seldom() -> None:
    """Why the design effect is there."""
    rng = random.Random(1)
    covered, rounds = 0, 400
    for _ in range(rounds):
        shares = [rng.betavariate(1, 1) for _ in range(40)]
        wins = sum(rng.random() < share for share in shares for _ in range(4))
        low, high = wilson(wins / 160, 160)
        covered += low <= 0.5 <= high
    assert covered / rounds < 0.9


def test_without_votes_there_is_no_rate() -> None:
    rate = rate_of([])
    assert math.isnan(rate.rate) and rate.winner == "" and rate.votes == 0


def test_rates_are_told_by_category() -> None:
    questions = tuple(Question(i, f"p{i}", "Animals" if i < 3 else "Arts", 0) for i in range(4))
    plan = Plan(("one", "other"), 0, questions)
    votes = [Vote("Eva", i, "looks", "A" if i < 3 else "B", i % 2 == 0) for i in range(4)]
    found = rates(plan, votes)
    assert {name: rate.wins_a for name, rate in found["looks"].items()} == {"": 3, "Animals": 3, "Arts": 0}
    assert found["alignment"][""].votes == 0
    plain = as_plain(plan, votes)
    assert (
        plain["rates"]["looks"]["Animals"]["rate"] == 1 and plain["rates"]["alignment"]["all"]["rate"] is None
    )
    assert plain["voters"] == {"Eva": 4}
    assert plain["left_chosen"] == 0.25  # A on the left at question 1 alone; B on the right at question 3
