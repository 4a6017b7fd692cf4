"""How often A was preferred, and how sure that is."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any

from inference.compare.plan import Plan
from inference.compare.votes import ASPECTS, Vote

LEVEL = 0.95
SCORES = {"A": 1.0, "tie": 0.5, "B": 0.0}
METHOD = (
    "A's rate is (wins of A + ties / 2) / votes. Its 95 % interval is Wilson's score interval (Wilson 1927)"
    " with the effective number of votes: votes on one prompt resemble each other, so their number is divided"
    " by the design effect (Kish 1965): the variance of the rate between prompts over that of independent"
    " votes, where it is above 1."
)


@dataclass(frozen=True)
class Rate:
    """Votes on one aspect. rate, low, high: of A, 0 to 1; NaN without votes. effective: number of votes that
    independent ones would need for the same certainty."""

    wins_a: int
    wins_b: int
    ties: int
    prompts: int
    rate: float
    low: float
    high: float
    effective: float

    @property
    def votes(self) -> int:
        """All of them."""
        return self.wins_a + self.wins_b + self.ties

    @property
    def winner(self) -> str:
        """A or B where the interval leaves 50 % out; else none."""
        return "A" if self.low > 0.5 else "B" if self.high < 0.5 else ""


def wilson(rate: float, number: float, level: float = LEVEL) -> tuple[float, float]:
    """Wilson's score interval for a share that was found in `number` > 0 independent trials."""
    z = NormalDist().inv_cdf(0.5 + level / 2)
    middle = (rate + z * z / (2 * number)) / (1 + z * z / number)
    half = z / (1 + z * z / number) * math.sqrt(rate * (1 - rate) / number + (z / (2 * number)) ** 2)
    return max(0.0, middle - half), min(1.0, middle + half)


def rate_of(choices: Iterable[tuple[str, str]], level: float = LEVEL) -> Rate:
    """From (prompt, A | B | tie) of every vote."""
    of_prompt: dict[str, list[float]] = defaultdict(list)
    counts = dict.fromkeys(SCORES, 0)
    for prompt, choice in choices:
        of_prompt[prompt].append(SCORES[choice])
        counts[choice] += 1
    number = sum(counts.values())
    if not number:
        return Rate(0, 0, 0, 0, math.nan, math.nan, math.nan, 0.0)
    rate = (counts["A"] + counts["tie"] / 2) / number
    effective = number / design_effect(list(of_prompt.values()), rate)
    low, high = wilson(rate, effective, level)
    return Rate(counts["A"], counts["B"], counts["tie"], len(of_prompt), rate, low, high, effective)


def design_effect(groups: Sequence[Sequence[float]], rate: float) -> float:
    """How much larger the variance of the rate is than that of as many independent votes; at least 1.

    groups: scores of the votes on each prompt. Linearised variance of a ratio of sums over clusters.
    """
    number, count = sum(map(len, groups)), len(groups)
    independent = rate * (1 - rate) / number
    if count < 2:
        return float(number)  # one prompt says as much as one vote
    if not independent or count == number:
        return 1.0
    spread = sum((sum(group) - rate * len(group)) ** 2 for group in groups)
    return max(1.0, spread * count / (count - 1) / number**2 / independent)


def rates(plan: Plan, votes: Sequence[Vote]) -> dict[str, dict[str, Rate]]:
    """For each aspect: of all votes (""), and by category where there are any."""
    questions = {q.number: q for q in plan.questions}
    categories = list(dict.fromkeys(["", *sorted({q.category for q in plan.questions})]))
    found: dict[str, dict[str, Rate]] = {}
    for aspect in ASPECTS:
        said = [(questions[v.question], v.choice) for v in votes if v.aspect == aspect]
        found[aspect] = {
            category: rate_of((q.prompt, choice) for q, choice in said if category in ("", q.category))
            for category in categories
        }
    return found


def as_plain(plan: Plan, votes: Sequence[Vote]) -> dict[str, Any]:
    """What report.json holds."""

    def plain(rate: Rate) -> Mapping[str, Any]:
        values = {key: None if v != v else v for key, v in asdict(rate).items()}
        return values | {"votes": rate.votes, "winner": rate.winner or None}

    found = rates(plan, votes)
    left = [v.choice == ("B" if v.is_swapped else "A") for v in votes if v.choice != "tie"]
    voters = sorted({vote.voter for vote in votes})
    return {
        "A": plan.sides[0],
        "B": plan.sides[1],
        "questions": len(plan.questions),
        "voters": {voter: sum(vote.voter == voter for vote in votes) for voter in voters},
        "left_chosen": sum(left) / len(left) if left else None,
        "level": LEVEL,
        "method": METHOD,
        "rates": {a: {c or "all": plain(r) for c, r in of.items()} for a, of in found.items()},
    }
