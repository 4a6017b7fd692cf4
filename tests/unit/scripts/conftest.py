"""Files of weights for the commands that read them."""

from pathlib import Path

import pytest

from modules.weights import save_network
from modules.weights.lora_files import write_lora
from tests.unit.scripts.weight_cases import network, random_lora


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """base and other: networks; lora and second: changes of base."""
    base = network(0)
    paths = {name: tmp_path / f"{name}.safetensors" for name in ("base", "other", "lora", "second")}
    save_network(paths["base"], base, "stage_c", {"compression": 8.0})
    save_network(paths["other"], network(1), "stage_c", {})
    for seed, name in enumerate(("lora", "second")):
        write_lora(paths[name], random_lora(base, seed).to_state({"for": "stage_c"}))
    return paths
