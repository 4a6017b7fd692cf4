"""ControlNet against the recorded outputs of the published one, and its released files."""

from typing import Any

import pytest
import torch

import modules
from modules.weights.official import recognise
from tests.oracle.network_cases import Case, runs
from tests.oracle.test_oracle_manifests import MANIFESTS, shapes_of

pytestmark = pytest.mark.oracle

RELEASED = [
    pytest.param(each, id=each["model"]) for each in MANIFESTS if each["source_class"] == "ControlNet"
]


def is_controlnet(facts: dict[str, str]) -> bool:
    return facts.get("model_class") == "ControlNet"


@pytest.mark.parametrize(("case", "run"), runs("ControlNet"))
def test_controlnet(case: Case, run: str) -> None:
    network = case.network()
    recorded = case.part(f"out.{run}")
    with torch.no_grad():
        controls = network(**case.inputs(run))
    given = {f"cnet.{block}": control for block, control in enumerate(controls) if control is not None}
    assert given.keys() == recorded.keys()
    for name, control in given.items():
        case.check(run, name, control)


@pytest.mark.parametrize("manifest", RELEASED)
def test_released_controlnet_is_recognised_with_all_its_settings(manifest: dict[str, Any]) -> None:
    name, config = recognise(shapes_of(manifest))
    with torch.device("meta"):
        assert modules.build(name, config).config == modules.build(name, manifest["config_kwargs"]).config


def test_there_are_recorded_and_released_controlnets() -> None:
    assert runs("ControlNet") and RELEASED
