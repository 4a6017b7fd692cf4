"""The warm-up against the recorded learning rates: the published one, without its wasted first update."""

import json
from typing import Any

import pytest

from tests.oracle.network_cases import FOLDER
from train.config import OptimConfig
from train.optim.rates import learning_rate

pytestmark = pytest.mark.oracle

RESUMED = "_resumed_at_"


def sequences() -> list[tuple[float, str, list[float]]]:
    """(full rate, name, rates by update) of every recorded sequence, from whichever files have them."""
    contents = [json.loads(path.read_text()) for path in sorted(FOLDER.rglob("*.json"))]
    recorded: list[dict[str, Any]] = [data["warmup_lr"] for data in contents if "warmup_lr" in data]
    return [
        (entry["base_lr"], name, rates)
        for entry in recorded
        for name, rates in entry["sequence_after_k_steps"].items()
    ]


def test_there_are_recorded_sequences() -> None:
    assert sequences()


@pytest.mark.parametrize(("rate", "name", "recorded"), sequences(), ids=lambda value: str(value)[:20])
def test_rates_are_the_recorded_ones_but_for_the_update_with_rate_0(rate, name, recorded) -> None:
    """Recorded update 0 has rate 0, also after a resume at update 100; ours begins with recorded update 1."""
    warmup, _, resumed_at = name.partition(RESUMED)
    config = OptimConfig(lr=rate, warmup_steps=int(warmup) - 1)
    first = int(resumed_at or 0)
    found = [learning_rate(config, first + k, num_steps=10**6) for k in range(len(recorded) - 1)]
    assert recorded[0] == 0 and found[0] > 0
    assert found == pytest.approx(recorded[1:])
