"""The saliency network against the recorded outputs of the published one."""

import pytest
import torch

from tests.oracle.network_cases import Case, runs

pytestmark = pytest.mark.oracle


def is_saliency(facts: dict[str, str]) -> bool:
    return facts.get("model_class") == "MicroResNet"


@pytest.mark.parametrize(("case", "run"), runs("MicroResNet"))
def test_saliency(case: Case, run: str) -> None:
    with torch.no_grad():
        case.check(run, "saliency", case.network()(case.inputs(run)["x"]))


def test_there_are_recorded_cases() -> None:
    assert runs("MicroResNet")
