"""Folders with CLIP models: what is in them is data, checked before transformers reads it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from modules.limits import at_most, check_sizes
from modules.weights.folders import component_weights
from modules.weights.loading import check_tensors
from modules.weights.plain_data import read_json
from modules.weights.sources import open_source

# Of a config: how the model is built. What chooses code, number formats or other files is left unread.
READ = {
    *("vocab_size", "max_position_embeddings", "bos_token_id", "eos_token_id", "pad_token_id"),
    *("image_size", "patch_size", "num_channels"),
    *("hidden_size", "intermediate_size", "projection_dim", "num_hidden_layers", "num_attention_heads"),
    *("hidden_act", "layer_norm_eps", "attention_dropout", "initializer_range", "initializer_factor"),
}
SOME = 100  # more tensors than a file has: the difference can still be named
OLD_NAMES = ("pytorch_model.bin", "pytorch_model.bin.index.json")
ELSEWHERE = "adapter_config.json"  # by which transformers would load what the folder names


def read_encoder(kind: Any, folder: Path, dtype: torch.dtype | None = None) -> Any:
    """The encoder in a folder. kind: its class in transformers. dtype: of its weights; None: the file's.

    Raises for a folder with no such encoder, with tensors of other shapes than its config says, or with
    anything that would be run, or read elsewhere.
    """
    if (folder / ELSEWHERE).exists():
        raise ValueError(f"{ELSEWHERE} names another model; merge the adapter, or remove that file")
    config = read_config(folder / "config.json", kind)
    old = (folder / name for name in OLD_NAMES)
    weights = component_weights(folder) or next(filter(Path.is_file, old), None)
    if weights is None:
        raise ValueError("no weights in it; expected model.safetensors")
    check_fit(weights, config, kind)  # reads all of the pickles that transformers would read, or refuses them
    options = {} if dtype is None else {"dtype": dtype}
    return kind.from_pretrained(folder, config=config, local_files_only=True, **options)


def read_config(file: Path, kind: Any) -> Any:
    """What a config says of how the model is built; of a whole CLIP's, the half that is meant."""
    plain = read_json(file)
    half = plain.get(kind.config_class.base_config_key, plain)
    if not isinstance(half, Mapping):
        raise ValueError(f"{file.name}: expected a mapping, found {half!r}")
    settings = {key: value for key, value in half.items() if key in READ}
    check_sizes(settings, f"{file.name}: ")
    return kind.config_class(**settings)


def check_fit(file: Path, config: Any, kind: Any) -> None:
    """Raise ValueError unless a file has all tensors of the model, in its shapes; it may have others too."""
    found = open_source(file).state
    with torch.device("meta"), at_most(2 * len(found) + SOME, "config.json"):
        expected = kind(config).state_dict()
    check_tensors(file, expected, {name: found[name] for name in expected if name in found})
