"""Recorded cases of LoRA: expected failures until those exist."""

import importlib
from pathlib import Path
from typing import Any

import pytest

from tests.oracle.network_cases import files, is_lora

pytestmark = [
    pytest.mark.oracle,
    pytest.mark.xfail(strict=True, raises=ModuleNotFoundError, reason="adapters are the next issue's"),
]


def cases(understands: Any) -> list[Any]:
    return [pytest.param(path, id=path.stem) for path in files(understands)]


@pytest.mark.parametrize("path", cases(is_lora))
def test_lora(path: Path) -> None:
    importlib.import_module("modules.adapters.lora")
