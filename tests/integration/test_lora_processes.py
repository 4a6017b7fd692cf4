"""The LoRA recipe learns the same with one process and with two."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.integration.launching import run_ranks
from tests.integration.lora_cases import STEPS, TOKENS, Settings, lora_settings, weights
from tests.integration.test_distributed import rows
from train.config import config_from_plain
from train.loop import run

DISTRIBUTED: dict[str, dict[str, Any]] = {
    "tokens": {"recipe": {"tokens": TOKENS, "dropout": 0.0}},
    "checkpointing": {
        "recipe": {"tokens": TOKENS, "dropout": 0.0},
        "parallel": {"activation_checkpointing": True},
    },
    "bf16": {"recipe": {"dropout": 0.0}, "run": {"precision": "bf16"}},
    "dora": {"recipe": {"dropout": 0.0, "dora": True}},
    "stage_b": {"base": "stage_b", "recipe": {"tokens": TOKENS, "dropout": 0.0}},
    "four_bits": {"recipe": {"dropout": 0.0}, "model": {"stage_c": {"frozen_weights": "nf4"}}},
    "eight_bits": {
        "recipe": {"dropout": 0.0},
        "model": {"stage_c": {"frozen_weights": "int8"}},
        "parallel": {"activation_checkpointing": "selective"},
    },
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("lora")


@pytest.fixture(scope="module")
def settings(folder: Path, shards: Path) -> Settings:
    return lora_settings(folder, shards)


@pytest.fixture(scope="module")
def together(settings: Settings, folder: Path, shards: Path) -> None:
    """All cases with one process, and with two that share the weights or only the pictures."""
    of_two = []
    for mode in ("one", "fsdp", "ddp"):
        for name, case in DISTRIBUTED.items():
            if mode == "ddp" and name != "tokens":
                continue
            recipe = case["recipe"] | {"regularisation": {"shards": str(shards)}}
            parallel = {"mode": "ddp" if mode == "one" else mode, "shard_frozen": mode == "fsdp"}
            parallel |= case.get("parallel", {})
            data = {"batch_size": 4 if mode == "one" else 2}
            others = {key: case[key] for key in ("base", "run", "model") if key in case}
            plain = settings(f"{name}_{mode}", recipe=recipe, parallel=parallel, data=data, **others)
            if mode == "one":
                run(config_from_plain(plain))
            else:
                of_two.append(plain)
    (folder / "of_two.json").write_text(json.dumps(of_two))
    run_ranks("train_worker", folder / "of_two.json")


@pytest.mark.parametrize(("name", "mode"), [*((name, "fsdp") for name in DISTRIBUTED), ("tokens", "ddp")])
def test_two_processes_learn_as_one(together: None, name: str, mode: str, folder: Path) -> None:
    alone, shared = rows(folder / f"{name}_one"), rows(folder / f"{name}_{mode}")
    assert len(alone) == len(shared) == STEPS
    tolerance = 3e-2 if name in ("bf16", "four_bits") else 2e-3
    for expected, found in zip(alone, shared, strict=True):
        for key in ("loss", "regularisation_loss", "gradient_norm"):
            assert float(found[key]) == pytest.approx(float(expected[key]), rel=tolerance), key
    if name not in ("bf16", "four_bits"):
        ours, theirs = weights(folder / f"{name}_one"), weights(folder / f"{name}_{mode}")
        for file, tensors in ours.items():
            assert tensors.keys() == theirs[file].keys()
            for key, value in tensors.items():
                torch.testing.assert_close(theirs[file][key], value, rtol=2e-2, atol=2e-3)
