"""Recorded cases of LoRA and control filters: expected failures until those exist."""

import importlib
from pathlib import Path
from typing import Any

import pytest

from tests.oracle.network_cases import files, is_lora

pytestmark = [
    pytest.mark.oracle,
    pytest.mark.xfail(strict=True, raises=ModuleNotFoundError, reason="adapters are the next issue's"),
]


def is_saliency(facts: dict[str, str]) -> bool:
    return facts.get("model_class") == "MicroResNet"


def is_filters(facts: dict[str, str]) -> bool:
    return '"canny"' in facts.get("spec", "")


def cases(understands: Any) -> list[Any]:
    return [pytest.param(path, id=path.stem) for path in files(understands)]


@pytest.mark.parametrize("path", cases(is_lora))
def test_lora(path: Path) -> None:
    importlib.import_module("modules.adapters.lora")


@pytest.mark.parametrize("path", cases(is_saliency))
def test_saliency(path: Path) -> None:
    importlib.import_module("modules.adapters.saliency")


@pytest.mark.parametrize("path", cases(is_filters))
def test_control_filters(path: Path) -> None:
    importlib.import_module("modules.adapters.control_filters")
