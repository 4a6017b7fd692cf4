"""Sizes of latents, and of what the compressor sees, against the published implementation's."""

import json
from typing import Any

import pytest

from modules.conditions import compressor_grid, latent_size
from tests.oracle.network_cases import FOLDER

pytestmark = pytest.mark.oracle

STAGE_C_COMPRESSION = 42.67  # as the published code rounds 1024 / 24
STAGE_B_COMPRESSION = 4
COMPRESSOR_FACTOR = 32
# The last is test_oracle_warmup's.
KNOWN_SECTIONS = {"oracle", "latent_sizes", "downscale_three_quarters", "warmup_lr"}


def contents() -> list[dict[str, Any]]:
    """All JSON files of the oracle."""
    return [json.loads(path.read_text()) for path in sorted(FOLDER.rglob("*.json"))]


def recorded(section: str) -> list[Any]:
    """The entries of a section, from whichever files have it."""
    return [entry for data in contents() if section in data for entry in data[section]]


def test_there_are_recorded_cases() -> None:
    assert recorded("latent_sizes") and recorded("downscale_three_quarters")


def test_every_section_is_known() -> None:
    sections = {key for data in contents() if "latent_sizes" in data for key in data}
    assert sections <= KNOWN_SECTIONS


@pytest.mark.parametrize("row", recorded("latent_sizes"), ids=lambda row: f"{row['height']}x{row['width']}")
def test_latent_sizes(row: dict[str, Any]) -> None:
    sides = row["height"], row["width"]
    assert row["stage_c"][2:] == [latent_size(side, STAGE_C_COMPRESSION) for side in sides]
    assert row["stage_b"][2:] == [latent_size(side, STAGE_B_COMPRESSION) for side in sides]


@pytest.mark.parametrize("row", recorded("downscale_three_quarters"), ids=lambda row: str(row["hw"]))
def test_what_the_compressor_sees(row: dict[str, Any]) -> None:
    grid = compressor_grid(row["hw"], 0.75, COMPRESSOR_FACTOR)
    assert row["out_hw"] == [side * COMPRESSOR_FACTOR for side in grid]
