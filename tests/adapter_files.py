"""Small adapters with random weights for the networks of `tiny_runs`, in files as training leaves them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from modules import build
from modules.adapters.lora import LoRA
from modules.adapters.tokens import TrainedTokens
from modules.encoders import TextEncoder
from modules.weights import load_network, read_header, save_network
from tests.conftest import NETWORKS

SMALL_BACKBONE = NETWORKS["semantic_compressor"][1]["backbone"]
NEW_TOKEN = "[star]"
CONTROLNETS: dict[str, dict[str, Any]] = {  # by filter
    "canny": {"c_in": 1, "backbone": SMALL_BACKBONE},
    "inpainting": {"c_in": 4, "backbone": SMALL_BACKBONE},
    "super_resolution": {"c_in": 16, "bottleneck_mode": "simple"},
}
LCM_SAMPLING = {"steps": 4, "guidance": 1.0, "shift": 1.0, "sampler": "lcm", "rescale": 0.0}


def write_loras(runs: Path, folder: Path) -> None:
    """lora_c and lora_attention (both with a new token), lora_b; lora_text changes the text encoder alone."""
    for name, stage, patterns, seed in (
        ("lora_c", "stage_c", {"*.attn.to_*": 2, "*.channelwise.*": 3}, 1),
        ("lora_b", "stage_b", {"*.attn.to_*": 2, "*.channelwise.*": 3}, 2),
        ("lora_attention", "stage_c", {"*.attn.*": 2}, 4),
    ):
        lora = LoRA.create(load_network(runs / stage, stage), patterns)
        shake(lora, seed, 0.3)
        if stage == "stage_c":
            encoder = TextEncoder(source=str(runs / stage / "text_encoder"))
            lora.bundle_emb = TrainedTokens.create(encoder, {NEW_TOKEN: "circle|square"})
            shake(lora.bundle_emb, seed, 1.0)
        save(folder, name, lora, "lora", {"base": {"network": stage}})
    text = LoRA.create(encoder.model, {"*mlp*": 2}, part="text_encoder")
    shake(text, 3, 0.5)
    save(folder, "lora_text", text, "lora", {"base": {"network": "stage_c"}})


def write_controlnets(folder: Path) -> None:
    """One for each of CONTROLNETS, called as its filter."""
    for number, (name, config) in enumerate(CONTROLNETS.items()):
        network = build("controlnet", {"c_proj": 16, "proj_blocks": [0, 3], **config})
        shake(network, number, 0.3)
        save(folder, name, network, "controlnet", {"filter": {"name": name}})


def write_ip_adapter(folder: Path, image_encoder: Path) -> None:
    """ip_adapter, for the image encoder of `tiny_runs`."""
    config = {"channels": [16] * 4, "c_image": 12, "c_tokens": 16}
    network = build("ip_adapter", {**config, "image_proj": {"name": "pooled", "num_tokens": 2}})
    shake(network, 5, 0.5)
    save(folder, "ip_adapter", network, "ip_adapter", {"image_encoder": str(image_encoder)})


def write_lcm(runs: Path, folder: Path) -> None:
    """lcm: a Stage C that is best sampled in four steps."""
    header = read_header(runs / "stage_c" / "weights" / "stage_c.safetensors")
    facts = {key: value for key, value in header.items() if key not in ("network", "config")}
    network = load_network(runs / "stage_c", "stage_c", ema=False)
    save(folder, "lcm", network, "stage_c", {**facts, "sampling": LCM_SAMPLING})
    TextEncoder(source=str(runs / "stage_c" / "text_encoder")).save(folder / "lcm" / "text_encoder")


def save(folder: Path, run: str, network: Any, name: str, facts: Mapping[str, Any]) -> None:
    weights = folder / run / "weights"
    weights.mkdir(parents=True)
    save_network(weights / f"{name}.safetensors", network, name, facts)


def shake(network: nn.Module, seed: int, deviation: float) -> None:
    """Give every parameter a value that matters."""
    rng = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        parameter.data.add_(deviation * torch.randn(parameter.shape, generator=rng))


def write_adapters(tiny_runs: Path, folder: Path) -> Path:
    """All of the above, for the cascade of `tiny_runs`, into one folder, which is returned."""
    write_loras(tiny_runs, folder)
    write_controlnets(folder)
    write_ip_adapter(folder, tiny_runs / "image_encoder")
    write_lcm(tiny_runs, folder)
    return folder
