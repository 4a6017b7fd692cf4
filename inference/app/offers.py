"""The adapters that the page offers: found on the server, chosen by name; a visitor names no path."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from inference.app.settings import AppSettings
from modules.weights import find_weights, read_header
from modules.weights.lora_files import find_lora

INPAINTING = "inpainting"
DEPTHS = ("*", "*/*")  # of runs in the folder of runs


@dataclass(frozen=True)
class Offers:
    """Paths by the names that visitors see. filters: of each ControlNet, the one it learned with."""

    loras: dict[str, str] = field(default_factory=dict)
    controlnets: dict[str, str] = field(default_factory=dict)
    ip_adapters: dict[str, str] = field(default_factory=dict)
    filters: dict[str, str | None] = field(default_factory=dict)


def find_offers(settings: AppSettings) -> Offers:
    """What the settings name, or all in the run's folder. FileNotFoundError, ValueError for what is not."""
    run, ema = settings.run, settings.ema
    loras = named(settings.loras, run, "lora", "loras", ema)
    controlnets = named(settings.controlnets, run, "controlnet", "controlnets", ema)
    ip_adapters = named(settings.ip_adapters, run, "ip_adapter", "ip_adapters", ema)
    filters = {name: filter_of(find_weights(path, "controlnet", ema)) for name, path in controlnets.items()}
    return Offers(loras, controlnets, ip_adapters, filters)


def named(given: Sequence[str] | None, run: str | None, kind: str, setting: str, ema: bool) -> dict[str, str]:
    """Adapters of a kind by name: those given, else those in the folder of runs."""
    if given is None:
        folders = runs_with(Path(run), kind) if run is not None else []
        return {folder.relative_to(str(run)).as_posix(): str(folder) for folder in folders}
    offered: dict[str, str] = {}
    for path in given:
        try:
            find(path, kind, ema)
        except (FileNotFoundError, ValueError) as error:
            raise ValueError(f"{setting}: {error}") from None
        name = unused(Path(path).stem, offered)
        offered[name] = path
    return offered


def find(path: str, kind: str, ema: bool) -> Path:
    """The file of an adapter of that kind."""
    return find_lora(path, ema) if kind == "lora" else find_weights(path, kind, ema)


def runs_with(folder: Path, kind: str) -> list[Path]:
    """Runs beneath a folder that hold an adapter of that kind, sorted."""
    files = {file for depth in DEPTHS for file in folder.glob(f"{depth}/weights/{kind}*.safetensors")}
    return sorted({file.parent.parent for file in files if file.stem in (kind, f"{kind}_ema")})


def filter_of(file: Path) -> str | None:
    """The filter that a ControlNet of our own learned with; an official file does not say it."""
    return (read_header(file, "controlnet").get("filter") or {}).get("name")


def unused(name: str, taken: dict[str, str]) -> str:
    """The name, with a number where it is taken."""
    number, found = 1, name
    while found in taken:
        number += 1
        found = f"{name} {number}"
    return found
