"""What a LoRA file says of itself: our header, and the entries that other tools look at."""

import json
import math
from collections.abc import Mapping
from typing import Any

import torch

from modules.adapters.lora_state import Factors, LoRAState
from modules.schema import convert
from modules.weights.headers import HEADER_KEY
from modules.weights.lora_layouts import LAYOUTS, spelt

PEFT_KEY = "lora_adapter_metadata"  # of diffusers; peft itself has it in a file beside
PEFT_FILE = "adapter_config.json"
PEFT_PREFIXES = {"unet": ("prior.", "decoder.", "unet.", ""), "text_encoder": ("text_encoder.",)}
BY_LAYOUT = (PEFT_KEY, "modelspec.architecture")  # what another layout writes differently
ARCHITECTURES = {"stage_c": "stable-cascade-v1-prior/lora", "stage_b": "stable-cascade-v1-decoder/lora"}


def make_metadata(state: LoRAState, layout: str, network: str, ours: Mapping[str, Any]) -> dict[str, str]:
    """The metadata of a file. network: stage_c or stage_b; ours: what our header says besides the facts."""
    layers = [factors for part in state.parts.values() for factors in part.values()]
    ranks, alphas = {len(each.down) for each in layers}, {alpha_of(each) for each in layers}
    facts = {key: value for key, value in state.facts.items() if key != "other_tools"}
    metadata = {
        "format": "pt",
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.architecture": "stable-cascade" if layout == "kohya" else ARCHITECTURES[network],
        "modelspec.implementation": "kaskade",
        "ss_base_model_version": "stable_cascade",
        "ss_network_module": "networks.lora",
        "ss_network_dim": _one_or_dynamic(ranks),
        "ss_network_alpha": _one_or_dynamic(alphas),
        **_kept(state),
        HEADER_KEY: json.dumps({**facts, "network": "lora", "layout": layout, "for": network, **ours}),
    }
    if LAYOUTS.get(layout) and LAYOUTS[layout].alpha == "metadata":
        metadata[PEFT_KEY] = json.dumps(peft_config(state, layout, network), indent=2, sort_keys=True)
    return metadata


def peft_config(state: LoRAState, layout: str, network: str) -> dict[str, Any]:
    """The keywords of peft's LoraConfig; under each part's prefix where the layout has one."""
    config: dict[str, Any] = {}
    for part, layers in state.parts.items():
        style = LAYOUTS[layout]
        prefix = style.prefix(part, network)
        if layers:
            named = {spelt(name, style, part, network): each for name, each in layers.items()}
            config |= {f"{prefix or ''}{key}": value for key, value in part_config(named).items()}
    return config


def part_config(layers: Mapping[str, Factors]) -> dict[str, Any]:
    """The keywords for the layers of one network. ValueError when only some of them have magnitudes."""
    ranks = {name: len(each.down) for name, each in layers.items()}
    alphas = {name: alpha_of(each) for name, each in layers.items()}
    dora = {each.dora_scale is not None for each in layers.values()}
    if len(dora) > 1:
        raise ValueError("LoRA: peft has DoRA for all layers or for none, here some have it")
    rank, alpha = next(iter(ranks.values())), next(iter(alphas.values()))
    # Patterns are regular expressions over the ends of names.
    return {
        "peft_type": "LORA",
        "r": rank,
        "lora_alpha": alpha,
        "rank_pattern": {_pattern(name): each for name, each in ranks.items() if each != rank},
        "alpha_pattern": {_pattern(name): each for name, each in alphas.items() if each != alpha},
        "target_modules": list(layers),
        "use_dora": dora.pop(),
    }


def take_peft_alphas(state: LoRAState, config: Mapping[str, Any]) -> None:
    """Give the state the alphas that peft's config says, where the tensors give none."""
    style = LAYOUTS["peft"]
    for part, layers in state.parts.items():
        prefix = next((each for each in PEFT_PREFIXES[part] if f"{each}lora_alpha" in config), None)
        if prefix is None:
            continue
        own = {key.removeprefix(prefix): value for key, value in config.items() if key.startswith(prefix)}
        for name, factors in layers.items():
            if factors.alpha is None:
                alpha = _peft_alpha(own, spelt(name, style, part, "stage_c"), len(factors.down))
                layers[name] = factors._replace(alpha=alpha)


def alpha_of(factors: Factors) -> float:
    """alpha, the rank where it is not given."""
    return float(len(factors.down) if factors.alpha is None else factors.alpha)


def _kept(state: LoRAState) -> dict[str, str]:
    others = state.facts.get("other_tools", {})
    return {key: text for key, text in others.items() if key not in BY_LAYOUT}


def _peft_alpha(config: Mapping[str, Any], name: str, rank: int) -> torch.Tensor:
    """Patterns are peft's regular expressions, of which only names are taken: a stranger's may never end."""
    patterns = (config.get("alpha_pattern") or {}).items()
    ends = (value for key, value in patterns if f".{name}".endswith("." + key.replace("\\.", ".")))
    alpha = convert(float, next(ends, config["lora_alpha"]), f"{PEFT_FILE}: lora_alpha")
    # Rank-stabilised LoRA (Kalajdzievski 2023) divides by the root of the rank.
    return torch.tensor(alpha * math.sqrt(rank) if config.get("use_rslora") else alpha)


def _pattern(name: str) -> str:
    return name.replace(".", r"\.")


def _one_or_dynamic(values: set[Any]) -> str:
    return str(next(iter(values))) if len(values) == 1 else "Dynamic"
