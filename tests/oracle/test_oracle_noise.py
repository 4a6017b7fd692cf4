"""Pyramid noise against the recorded noise of the published implementation."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

import gdf
from tests.oracle.gdf_records import FOLDER

pytestmark = pytest.mark.oracle


def pyramid_cases() -> list:
    found = []
    for path in sorted(FOLDER.rglob("*.safetensors")):
        with safe_open(path, "pt") as file:
            spec = json.loads((file.metadata() or {}).get("spec", "null"))
        if isinstance(spec, list) and all("draws" in case for case in spec):
            found += [pytest.param(path, case, id=f"{path.stem}-{case['name']}") for case in spec]
    return found


@pytest.mark.parametrize(("path", "case"), pyramid_cases())
def test_pyramid_noise(path: Path, case: dict) -> None:
    tensors, name = load_file(path), case["name"]
    draws = iter(
        [tensors[f"{name}.in.epsilon"], *(tensors[f"{name}.draw{i}"] for i in range(len(case["draws"])))]
    )
    noise = gdf.pyramid_noise(case["shape"], lambda shape: next(draws), square_levels=True, **case["kwargs"])
    torch.testing.assert_close(noise, tensors[f"{name}.out"], atol=2e-6, rtol=1e-6)
    assert next(draws, None) is None
