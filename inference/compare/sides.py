"""What is compared: runs, settings of inference, or folders of pictures that were made elsewhere."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from inference.config import Config
from inference.naming import naming
from inference.pictures import slug
from modules.schema import ConfigError, from_plain, shown

NAMES = ("A", "B")
ENDINGS = (".png", ".jpg", ".jpeg", ".webp")
SETTINGS_ENDINGS = (".yaml", ".yml", ".json")
OURS = ("prompt", "prompts_file", "seed", "num_images", "recreate", "output", "sheet")
DIGITS = re.compile(r"(\d+)")


@dataclass(frozen=True)
class Side:
    """One of the two. config: how its pictures are made; None where `pictures` has them already.

    told: what was typed, for the record.
    """

    name: str
    told: str
    config: Config | None = None
    pictures: Path | None = None


def read_side(name: str, text: str, shared: Mapping[str, Any]) -> Side:
    """A side from what was typed: a run (or folder of runs), a folder of pictures, a YAML or JSON file of
    inference settings, or such settings themselves in braces.

    shared: settings of both, which a side's own come before. Raises ConfigError or FileNotFoundError.
    """
    with naming(name):
        if text.lstrip().startswith("{"):
            return Side(name, text, config_of(_parsed(text, "the settings"), shared))
        place = Path(text)
        if not place.exists():
            raise FileNotFoundError(
                f"{text} does not exist; expected a run, settings, or a folder of pictures"
            )
        if place.is_file():
            if place.suffix.lower() not in SETTINGS_ENDINGS:
                raise ConfigError(f"{text}: expected a folder, or settings in {', '.join(SETTINGS_ENDINGS)}")
            return Side(name, text, config_of(_parsed(_text(place), text), shared))
        if has_weights(place):
            return Side(name, text, config_of({"run": text}, shared))
        if not pictures_in(place):
            raise ConfigError(f"{text}: holds neither weights of a run nor pictures")
        return Side(name, text, pictures=place)


def config_of(plain: Any, shared: Mapping[str, Any]) -> Config:
    """Settings of inference. Raises ConfigError for those that the comparison itself decides."""
    if not isinstance(plain, Mapping):
        raise ConfigError(f"expected settings, such as {{run: outputs/demo}}, found {shown(plain)}")
    if taken := [key for key in OURS if key in plain]:
        raise ConfigError(f"{taken[0]}: the same for both sides; leave it out")
    if plain.get("task", "text_to_image") != "text_to_image":
        raise ConfigError(f"task: expected text_to_image, found {shown(plain['task'])}")
    return from_plain(Config, merged(shared, plain))


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Both, nested settings too; what is above counts."""
    result = dict(below)
    for key, value in above.items():
        both = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        result[key] = merged(result[key], value) if both else value
    return result


def has_weights(folder: Path) -> bool:
    """Whether a folder is a run, or holds runs."""
    return (folder / "weights").is_dir() or any((each / "weights").is_dir() for each in folder.iterdir())


def pictures_in(folder: Path) -> list[Path]:
    """The pictures in a folder in the order of their names, 2 before 10."""
    found = [path for path in folder.iterdir() if path.suffix.lower() in ENDINGS and path.name[0] != "."]
    return sorted(found, key=lambda path: [int(p) if p.isdigit() else p for p in DIGITS.split(path.name)])


def match(folder: Path, wanted: Sequence[tuple[str, int]]) -> list[Path]:
    """The picture for each (prompt, seed): by name, as <prompt>_<seed> or <prompt>, else by their order.

    Names are compared as `slug` writes them. Raises ConfigError when neither gives every prompt one.
    """
    files = pictures_in(folder)
    by_name = {slug(path.stem): path for path in reversed(files)}
    named = [by_name.get(slug(f"{slug(p)}_{seed}")) or by_name.get(slug(p)) for p, seed in wanted]
    if all(named) and len({p for p, _ in wanted}) <= len(set(named)):
        return [path for path in named if path is not None]
    if len(files) == len(wanted):
        return files
    missing = next(prompt for (prompt, _), path in zip(wanted, named, strict=True) if path is None)
    raise ConfigError(
        f"{folder}: {len(files)} pictures for {len(wanted)} prompts, and none is called {slug(missing)}.png;"
        " name them so, or have one for each prompt in the order of their names"
    )


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not UTF-8 text") from None


def _parsed(text: str, where: str) -> Any:
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError):
        raise ConfigError(f"{where}: cannot be read as YAML") from None
