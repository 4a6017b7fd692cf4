"""The settings of `precompute`: those of a training, of which it reads what decides about latents."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from dataset_tools.data_config import DataConfig
from dataset_tools.latent_facts import PARTS
from modules.schema import ConfigError, bounded, from_plain, kind_of, nearest, shown
from modules.settings import ImageEncoderSettings, NetworkSettings, TextEncoderSettings

KINDS = {
    "semantic_compressor": NetworkSettings,
    "stage_a": NetworkSettings,
    "image_encoder": ImageEncoderSettings,
    "text_encoder": TextEncoderSettings,
}
PREFIXES = ("data", "model", "recipe.compressor_scale", "run.seed", "run.precision")


@dataclass
class Run:
    """What is read of `run`."""

    seed: int = bounded(0, least=0)
    precision: Literal["bf16", "fp32"] = "fp32"


@dataclass
class Recipe:
    """What is read of `recipe`, or of the `recipe.base` of one that wraps another."""

    compressor_scale: float = bounded(1.0, 1e-3, 1.0)


@dataclass
class Settings:
    """networks: the settings of those that are run, by name."""

    data: DataConfig
    networks: dict[str, Any]
    recipe: Recipe
    run: Run


def read_settings(config: Path | None, given: Sequence[str], skip: Sequence[str]) -> Settings:
    """The settings of a YAML file, changed by KEY=VALUE texts, without the networks in `skip`.

    Raises ValueError, one line that names the key, or OSError.
    """
    plain = _read_yaml(config) if config else {}
    for text in given:
        _set(plain, text)
    recipe = _mapping(plain, "recipe")
    recipe = recipe.get("base") or recipe
    model = _mapping(plain, "model")
    _check(recipe, model)
    if recipe.get("name") == "stage_c":
        skip = [*skip, "stage_a"]  # which only draws its sample sheets
    data = {**_mapping(plain, "data"), "shards": "unused"}
    data.pop("sources", None)
    if data.get("control") is not None:
        raise ConfigError(
            "data.control: control pictures are made of pixels, latents have none; set it to null"
        )
    chosen = {
        name: _mapping(model, name) for name in PARTS if model.get(name) is not None and name not in skip
    }
    unused = [name for name, entry in chosen.items() if entry.get("weights", "") is None]
    if not chosen or unused:
        missing = f"{unused[0]}.weights" if unused else " and ".join(PARTS[:2])
        raise ConfigError(f"model.{missing}: missing; name the networks whose latents are wanted")
    settings = Settings(
        from_plain(DataConfig, data, "data"),
        {name: from_plain(KINDS[name], entry, f"model.{name}") for name, entry in chosen.items()},
        from_plain(Recipe, _known(recipe, "compressor_scale"), "recipe"),
        from_plain(Run, _known(_mapping(plain, "run"), "seed", "precision"), "run"),
    )
    settings.data.check()
    return settings


def _check(recipe: Mapping[str, Any], model: Mapping[str, Any]) -> None:
    """Raise ConfigError for a training of Stage B whose compressor latents are not the same every time."""
    if recipe.get("name") != "stage_b" or model.get("semantic_compressor") is None:
        return
    if _mapping(model, "semantic_compressor").get("train") is not False:
        raise ConfigError(
            "model.semantic_compressor.train: expected false: latents of a compressor that learns change;"
            " freeze it, or --skip semantic_compressor"
        )
    if (scale := recipe.get("random_scale", [0.5, 1.0])) != [1.0, 1.0]:
        raise ConfigError(f"recipe.random_scale: expected [1, 1], one size to precompute, found {scale}")


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        read = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"--config {path}: no such file") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"--config {path}: not UTF-8 text (byte {error.start})") from error
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"--config {path}: not YAML: {error}") from error
    if not isinstance(read, dict):
        found = "an empty file" if read is None else kind_of(read)
        expected = "a training's settings, such as a run's config.yaml"
        raise ConfigError(f"--config {path}: expected {expected}; found {found}")
    return read


def _set(plain: dict[str, Any], text: str) -> None:
    """Put KEY=VALUE into nested settings."""
    key, equals, value = text.partition("=")
    if not equals or not any(key == known or key.startswith(f"{known}.") for known in PREFIXES):
        problem = "a setting that is not read here" if equals else "no setting; expected KEY=VALUE"
        raise ConfigError(f"{text}: {problem}; {nearest(key, PREFIXES)}")
    *folders, last = key.split(".")
    if folders == ["recipe"] and "base" in _mapping(plain, "recipe"):
        folders = ["recipe", "base"]
    for folder in folders:
        if not isinstance(plain.setdefault(folder, {}), dict):
            raise ConfigError(f"{key}: {folder} holds no settings, found {shown(plain[folder])}")
        plain = plain[folder]
    try:
        plain[last] = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ConfigError(f"{key}: not a value that can be read: {value}") from error


def _mapping(plain: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = plain.get(key) or {}
    if not isinstance(found, Mapping):
        raise ConfigError(f"{key}: expected settings, found {found!r}")
    return found


def _known(plain: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    return {key: plain[key] for key in keys if key in plain}
