"""LoRA files of strangers: one line for what is wrong with their numbers, names and headers."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from modules.weights.lora_files import read_lora
from tests.hostile.broken_files import with_header

LAYER = "diffusion_model.down_blocks.0.2.attention.attn.to_q"
LORAS: dict[str, tuple[dict[str, torch.Tensor], str]] = {
    "alpha nan": ({f"{LAYER}.alpha": torch.tensor(float("nan"))}, "not finite"),
    "alpha inf": ({f"{LAYER}.alpha": torch.tensor(float("inf"))}, "not finite"),
    "factors nan": ({f"{LAYER}.lora_up.weight": torch.full((16, 2), float("nan"))}, "not finite"),
    "truth": ({f"{LAYER}.lora_up.weight": torch.ones(16, 2, dtype=torch.bool)}, "expected numbers"),
    "complex": ({f"{LAYER}.lora_up.weight": torch.ones(16, 2, dtype=torch.complex64)}, "expected numbers"),
    "whole": ({f"{LAYER}.lora_up.weight": torch.ones(16, 2, dtype=torch.int64)}, "expected floating numbers"),
    "other rank": ({f"{LAYER}.lora_up.weight": torch.ones(16, 3)}, "expected up"),
    "a rank beyond all": ({f"{LAYER}.lora_down.weight": torch.ones(2**20 + 1, 1)}, "no layer has the shape"),
    "a text": ({"bundle_emb.\x1b[2J.clip_g": torch.ones(1, 16)}, "expected up to 200 printable letters"),
    "rows": ({"embeddings.embeddings": torch.ones(2, 16), "embeddings.indices": torch.ones(3)}, "rows"),
}  # fmt: skip


@pytest.mark.parametrize("kind", LORAS)
def test_a_lora_of_absurd_numbers_is_refused(kind: str, tmp_path: Path) -> None:
    sound = {f"{LAYER}.lora_down.weight": torch.ones(2, 16), f"{LAYER}.lora_up.weight": torch.ones(16, 2)}
    changes, message = LORAS[kind]
    save_file(sound | changes, tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match=message):
        read_lora(tmp_path / "x.safetensors")


@pytest.mark.parametrize(
    "header",
    [
        {"network": "lora", "for": "stage_x"},
        {"network": "lora", "base": {"network": ["stage_c"]}},
        {"network": "lora", "alphas": {"unet": 1.0}},
        {"network": "lora", "alphas": {"nothing/x": 1.0}},
        {"network": "lora", "norms_of": "others"},
        {"network": "lora", "alphas": {f"unet/{LAYER.removeprefix('diffusion_model.')}": 1e30}},
    ],
)
def test_a_header_that_does_not_describe_its_lora(header: dict[str, Any], tmp_path: Path) -> None:
    sound = {f"{LAYER}.lora_down.weight": torch.ones(2, 16), f"{LAYER}.lora_up.weight": torch.ones(16, 2)}
    with pytest.raises(ValueError, match=r"x\.safetensors"):
        read_lora(with_header(tmp_path / "x.safetensors", header, sound))


def test_a_pattern_of_pefts_that_would_never_end_is_a_name(tmp_path: Path) -> None:
    sound = {f"{LAYER}.lora_A.weight": torch.ones(2, 16), f"{LAYER}.lora_B.weight": torch.ones(16, 2)}
    config = {"lora_alpha": 3.0, "alpha_pattern": {"(([a-z_.]+)+)+!": 1.0}}
    save_file(sound, tmp_path / "x.safetensors", {"lora_adapter_metadata": json.dumps(config)})
    [factors] = read_lora(tmp_path / "x.safetensors").parts["unet"].values()
    assert factors.alpha == 3.0
