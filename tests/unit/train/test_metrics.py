"""Metrics are averaged over what was reported, and what is not finite was not reported."""

import torch

from train.metrics import Means


def test_means_of_numbers_and_tensors_since_the_last_report() -> None:
    means = Means()
    means.add({"loss": torch.tensor(1.0), "rate": 2.0})
    means.add({"loss": torch.tensor(3.0, dtype=torch.bfloat16), "late": 5})
    assert means.result() == {"loss": 2.0, "rate": 2.0, "late": 5.0}
    assert means.result() == {}


def test_values_that_are_not_finite_do_not_count() -> None:
    means = Means()
    for value in (1.0, float("nan"), 2.0, float("inf")):
        means.add({"loss": value, "bucket": torch.tensor(float("nan"))})
    assert means.result() == {"loss": 1.5}
