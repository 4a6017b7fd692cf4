"""The device of a training run, and settings that do not work there."""

from typing import Any

import pytest
import torch

from modules.schema import ConfigError
from train.config import config_from_plain
from train.device_limits import check_device, unable
from train.parallel.world import World, device_kind
from train.session import set_arithmetic

MAC = frozenset({"mps", "cpu"})
MPS = torch.device("mps")


def config(**changes: Any) -> Any:
    plain = {
        "name": "test",
        "run": {"dir": "nowhere"},
        "data": {"shards": "x"},
        "recipe": {"name": "stage_a"},
    }
    return config_from_plain({**plain, **changes})


@pytest.mark.parametrize(
    ("wanted", "found", "processes", "taken"),
    [
        ("auto", {"cuda", "cpu"}, 8, "cuda"),
        ("auto", MAC, 1, "mps"),
        ("auto", MAC, 2, "cpu"),
        ("cpu", {"cuda", "cpu"}, 1, "cpu"),
        ("mps", MAC, 1, "mps"),
    ],
)
def test_the_best_device_is_taken_unless_one_is_named(
    wanted: str, found: Any, processes: int, taken: str
) -> None:
    assert device_kind(wanted, found, processes) == taken


@pytest.mark.parametrize(
    ("wanted", "found", "processes", "said"),
    [
        (
            "cuda",
            MAC,
            1,
            "run.device: cuda asked for, but torch finds no such device here; use run.device=auto",
        ),
        ("mps", {"cpu"}, 1, "run.device: mps asked for, but torch finds no such device here"),
        ("mps", MAC, 2, "run.device: mps works in one process, found 2; start one, or use run.device=cpu"),
    ],
)
def test_one_that_cannot_be_used_is_one_line(wanted: str, found: Any, processes: int, said: str) -> None:
    with pytest.raises(ConfigError, match=said.replace(".", r"\.")):
        device_kind(wanted, found, processes)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"optim": {"name": "adamw8bit"}}, r"^optim\.name: found adamw8bit, .* use adamw$"),
        (
            {"optim": {"players": {"discriminator": {"name": "paged_adamw8bit"}}}},
            r"^optim\.players\.discriminator\.name: found paged_adamw8bit, ",
        ),
        (
            {"model": {"stage_a": {"frozen_weights": "nf4"}}},
            r"^model\.stage_a\.frozen_weights: found nf4, .* use int8$",
        ),
    ],
)
def test_what_mps_lacks_is_said_before_anything_is_built(changes: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        check_device(config(**changes), MPS)
    check_device(config(**changes), torch.device("cpu"))


@pytest.mark.skipif(torch.backends.mps.is_available(), reason="MPS has bf16 there")
def test_bf16_where_a_device_has_none_is_one_line() -> None:
    (line,) = unable(config(run={"dir": "nowhere", "precision": "bf16"}), MPS)
    assert line == "run.precision: found bf16, which mps does not have on this system; use fp32"
    assert not [*unable(config(run={"dir": "nowhere", "precision": "bf16"}), torch.device("cpu"))]
    assert not [*unable(config(), MPS)]


@pytest.mark.parametrize(("precision", "is_rounded"), [("fp32", False), ("bf16", True)])
def test_fp32_on_a_gpu_is_rounded_to_tf32_only_beside_bf16(precision: str, is_rounded: bool) -> None:
    """Of matrices and of convolutions, which PyTorch rounds unless it is told not to."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    try:
        own = {"dir": "nowhere", "precision": precision}
        set_arithmetic(config(run=own), World(0, 1, torch.device("cuda", 0)))
        assert torch.backends.cudnn.allow_tf32 == is_rounded
        assert (torch.get_float32_matmul_precision() == "high") == is_rounded
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]
