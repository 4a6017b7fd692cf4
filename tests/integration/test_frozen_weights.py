"""Beside a base in few bits adapters learn nearly as beside the whole one; encoders may lie elsewhere."""

import csv
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from modules.adapters.quantised import LAYERS
from modules.weights import read_header
from tests.integration.recipe_cases import IMAGE, RANDOM_COMPRESSOR, RECIPES, TEXT_ENCODER
from train.config import config_from_plain
from train.loop import run
from train.recipes import make_recipe

BACKBONE = {"stages": [["fused", 1, 3, 1, 8, 8, 1], ["fused", 2, 3, 2, 8, 16, 1]], "c_last": 16}
BASE = {"name": "stage_c", "sampling": {"steps": 2, "shift": 2.0}}
ADAPTER = {"c_image": 16, "image_proj": {"name": "pooled", "num_tokens": 2}}
TEACHER = {"steps": 4, "shift": 2.0, "sampler": "ddim"}
CASES: dict[str, dict[str, Any]] = {
    "lora": {"recipe": {"name": "lora", "layers": {"*.attn.*": 2}}},
    "controlnet": {
        "recipe": {"name": "controlnet"},
        "model": {
            "controlnet": {"config": {"c_in": 1, "c_proj": 16, "proj_blocks": [0, 3], "backbone": BACKBONE}}
        },
        "data": {"control": {"name": "canny", "low": 20, "high": 40}},
    },
    "ip_adapter": {"recipe": {"name": "ip_adapter"}, "model": {"ip_adapter": {"config": ADAPTER}}},
    "lcm": {"recipe": {"name": "lcm", "num_times": 8, "teacher": TEACHER}},
}


def settings(name: str, plain_config: Any, weights: Path, folder: Path, **held: Any) -> dict[str, Any]:
    """held: by the name of a network, how it is held."""
    case = deepcopy(CASES[name])
    model: dict[str, Any] = {
        "semantic_compressor": RANDOM_COMPRESSOR,
        "text_encoder": TEXT_ENCODER,
        "image_encoder": {"config": IMAGE},
        "stage_c": {"weights": str(weights)},
        **case.get("model", {}),
    }
    model = {network: {**entry, **held.get(network, {})} for network, entry in model.items()}
    plain = plain_config(
        run={"dir": str(folder), "precision": "bf16", "num_steps": 4}, data=case.get("data", {})
    )
    return {
        **plain,
        "recipe": {**case["recipe"], "base": BASE},
        "model": model,
        "gdf": RECIPES["stage_c"]["gdf"],
    }


def losses(folder: Path) -> list[float]:
    with (folder / "metrics.csv").open() as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


def trained(plain: dict[str, Any]) -> Any:
    config = config_from_plain(plain)
    recipe = make_recipe(config)
    run(config, recipe)
    return recipe


@pytest.mark.parametrize("name", CASES)
def test_learning_beside_few_bits_is_nearly_learning_beside_all(
    name: str, plain_config: Any, stage_c: Path, tmp_path: Path
) -> None:
    pytest.importorskip("bitsandbytes")
    whole = settings(name, plain_config, stage_c, tmp_path / "whole")
    trained(whole)
    expected = losses(tmp_path / "whole")
    for kind, close in (("int8", 0.05), ("nf4", 0.15)):
        base = {"frozen_weights": kind}
        plain = settings(name, plain_config, stage_c, tmp_path / kind, stage_c=base, image_encoder=base)
        recipe = trained(plain)
        frozen = recipe.teacher if name == "lcm" else recipe.base.network
        assert [layer for layer in frozen.modules() if isinstance(layer, LAYERS[kind])]  # type: ignore[arg-type]
        close *= 3 if name == "lcm" else 1  # guidance enlarges what the teacher says differently
        assert losses(tmp_path / kind) == pytest.approx(expected, rel=close)
        assert losses(tmp_path / kind) != expected
        written = {path.name for path in (tmp_path / kind / "weights").iterdir()}
        assert written == {path.name for path in (tmp_path / "whole" / "weights").iterdir()}
        for file in written:
            assert read_header(tmp_path / kind / "weights" / file)["base"]["fingerprint"]


@pytest.mark.parametrize("name", ["lora", "ip_adapter"])
def test_helpers_in_the_cpus_memory_change_nothing(
    name: str, plain_config: Any, stage_c: Path, tmp_path: Path
) -> None:
    helpers = ("semantic_compressor", "text_encoder", "image_encoder")
    for folder, held in (("here", {}), ("there", dict.fromkeys(helpers, {"offload": True}))):
        trained(settings(name, plain_config, stage_c, tmp_path / folder, **held))
    assert losses(tmp_path / "here") == losses(tmp_path / "there")
