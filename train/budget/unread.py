"""Settings of a run as they would be had all networks been read: their structures, without their files."""

from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

from modules.weights import describe, encoder_folder, find_weights
from modules.weights.plain_data import read_json

# CLIP ViT-bigG-14's text part (laion) and ViT-L/14's picture part (openai), by their published configs: taken
# for a hub name, which is not looked up.
RELEASED: dict[str, dict[str, Any]] = {
    "text_encoder": {
        "hidden_size": 1280,
        "intermediate_size": 5120,
        "num_hidden_layers": 32,
        "num_attention_heads": 20,
        "projection_dim": 1280,
    },
    "image_encoder": {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "projection_dim": 768,
        "image_size": 224,
        "patch_size": 14,
    },
}
FEW_BITS = ("int8", "nf4")
RELEASED_WORDS = 49408  # CLIP's vocabulary
MOST_CONFIG_BYTES = 1 << 20


def without_files(plain: Mapping[str, Any]) -> dict[str, Any]:
    """The same settings with random networks of the same sizes, so that no file has to be there.

    Files that are there say what the settings leave to them.
    """
    found = deepcopy(dict(plain))
    for name, entry in (found.get("model") or {}).items():
        if not isinstance(entry, dict):
            continue  # the recipe's checks will say
        entry.pop("offload", None)  # both are reckoned with, see `memory`
        if entry.get("frozen_weights") in FEW_BITS:
            del entry["frozen_weights"]
        if "source" in entry and entry["source"] is not None:
            entry |= {"source": None, "config": encoder_config(name, str(entry["source"]))}
        elif "weights" in entry:
            entry |= {"config": network_config(name, entry), "weights": None, "allow_random": True}
    recipe = found["recipe"]
    if recipe.get("perceptual_weights") is not None:  # its network is always the same, see `paper`
        found["recipe"] = recipe | {"perceptual_weight": 0.0, "perceptual_weights": None}
    return found


def vocabulary(plain: Mapping[str, Any]) -> int | None:
    """Words of the text encoder that files describe; None where the settings do."""
    entry = (plain.get("model") or {}).get("text_encoder") or {}
    if entry.get("source") is None:
        return None
    return int(file_config("text_encoder", str(entry["source"])).get("vocab_size", RELEASED_WORDS))


def network_config(name: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    """A network's constructor keywords: of its file where it is there, under those of the settings."""
    own = dict(entry.get("config") or {})
    weights = entry.get("weights")
    if not isinstance(weights, str) or not Path(weights).exists():
        return own
    kind, config = describe(find_weights(weights, name), name)
    return {**config, **own} if kind == name else own


def encoder_config(name: str, source: str) -> dict[str, Any]:
    """Keywords of an encoder's config: of its folder where it is one, else of the released encoder."""
    found = {**RELEASED[name], **file_config(name, source)}
    return {key: value for key, value in found.items() if key in RELEASED[name]}


def file_config(name: str, source: str) -> dict[str, Any]:
    """What an encoder's folder says; nothing for a hub name."""
    folder = encoder_folder(source, name) if Path(source).exists() else None
    if folder is None:
        return {}
    return dict(read_json(folder / "config.json", MOST_CONFIG_BYTES))
