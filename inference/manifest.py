"""What is in a folder of pictures that were made of a file of prompts: which prompt is which file."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from inference.config import Config
from inference.lines import Planned, Problem
from inference.settings import Request
from modules.schema import shown
from modules.whole_files import write_whole

MANIFEST = "manifest.jsonl"  # an object for each picture that is asked for, whether it is there yet or not
SETTINGS = "settings.json"  # what all pictures of the folder share
COMPARED = ("file", "prompt", "settings")  # of an entry
SHARED = ("run", "weights", "ema", "dtype", "quantize", "compile", "tile_px", "batch_size")


def write_manifest(
    folder: Path, planned: Sequence[Planned], problems: Sequence[Problem], config: Config
) -> None:
    """Write both files. Every process does so, and writes the same."""
    entries = [entry_of(each) for each in planned]
    entries += [{"line": each.line, "error": each.message} for each in problems]
    entries.sort(key=lambda entry: entry["line"])
    folder.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries]
    write_whole(folder / SETTINGS, json.dumps(shared_settings(config), indent=1) + "\n")
    write_whole(folder / MANIFEST, "".join(lines))


def check_manifest(folder: Path, planned: Sequence[Planned], config: Config) -> None:
    """Raise ValueError if the folder has pictures that these lines and settings would not make."""
    before, made = _read(folder)
    if not made:
        return
    for name, value in shared_settings(config).items():
        if before.get(name) != value:
            difference = f"{name}={shown(before.get(name))}, now {shown(value)}"
            raise ValueError(f"output: {folder} has pictures made with {difference}; name another folder")
    asked = {each.file: as_json(entry_of(each)) for each in planned}
    for entry in made:
        file = entry["file"]
        if file not in asked:
            raise ValueError(f"output: {folder} has {file}, for which no line asks; name another folder")
        for name in COMPARED:
            if entry[name] != asked[file][name]:
                difference = f"{name} {shown(entry[name])}, now {shown(asked[file][name])}"
                raise ValueError(f"output: {folder}/{file} was made with {difference}; name another folder")


def _read(folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The shared settings of a folder, and the entries of the pictures that are in it."""
    if not (folder / MANIFEST).is_file():
        return {}, []
    try:
        settings = dict(json.loads((folder / SETTINGS).read_text(encoding="utf-8")))
        rows = (folder / MANIFEST).read_text(encoding="utf-8").split("\n")
        entries = [dict(json.loads(row)) for row in rows if row]
        pictures = [entry for entry in entries if "error" not in entry]
        made = [{name: entry[name] for name in COMPARED} for entry in pictures]
        return settings, [entry for entry in made if (folder / entry["file"]).is_file()]
    except (OSError, ValueError, KeyError, TypeError):
        raise ValueError(f"output: {folder / MANIFEST} cannot be read; name another folder") from None


def entry_of(each: Planned) -> dict[str, Any]:
    """What the manifest says of a picture."""
    asked, usual = asdict(each.request), asdict(Request())
    rest = {name: asked[name] for name in asked if asked[name] != usual[name]}
    own = {"file": each.file, "line": each.line, "prompt": rest.pop("prompt", ""), "seed": each.request.seed}
    rest.pop("seed", None)
    return own | {"settings": rest} | each.notes


def shared_settings(config: Config) -> dict[str, Any]:
    """The settings that change all pictures of a folder."""
    plain = asdict(config)
    return as_json({name: plain[name] for name in SHARED})


def as_json(value: Any) -> Any:
    """A value as it comes back from a file: tuples are lists."""
    return json.loads(json.dumps(value))
