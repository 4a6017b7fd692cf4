"""Metrics are averaged over what was reported, and what is not finite was not reported."""

import json

import torch

from train.reports.metrics import Means


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


def test_a_window_that_is_cut_by_a_resume_has_the_same_means() -> None:
    whole, first, second = Means(), Means(), Means()
    values = [0.1, float("nan"), 0.3, 1e-17, 7.25]
    for number in values:
        whole.add({"loss": torch.tensor(number), "rate": number})
    for number in values[:3]:
        first.add({"loss": torch.tensor(number), "rate": number})
    second.load_state_dict(json.loads(json.dumps([first.state_dict()])), rank=0, size=1)
    for number in values[3:]:
        second.add({"loss": torch.tensor(number), "rate": number})
    assert second.result() == whole.result()


def test_of_another_number_of_ranks_the_first_takes_what_all_had() -> None:
    states = [{"loss": [(1.0, 1.0)]}, {"loss": [(2.0, 0.5)]}]
    found = []
    for rank, size in ((0, 3), (1, 3), (2, 3), (1, 2)):
        means = Means()
        means.load_state_dict(states, rank, size)
        found.append(means.state_dict())
    assert found == [{"loss": [(1.0, 1.0), (2.0, 0.5)]}, {}, {}, {"loss": [(2.0, 0.5)]}]


def test_what_is_borrowed_counts_nothing_and_a_short_batch_as_much_as_its_pictures() -> None:
    means = Means()
    means.add({"psnr": torch.tensor(10.0)}, 1.5)
    means.add({"psnr": 20.0}, 0.5)
    means.add({"psnr": torch.tensor(1e6), "only_borrowed": 3.0}, 0.0)
    assert means.result() == {"psnr": 12.5}
