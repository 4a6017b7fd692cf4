"""`make demo-adapters`: trains the demo's adapters on the models of `make demo`, and judges them.

python -m scripts.demo_adapters [--out outputs/demo]

One ordinary command after the other; finished ones are skipped when it is run again. Leaves adapters.json and
adapters.html in the folder, and every adapter's pictures in adapters/.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from modules.whole_files import write_whole
from scripts.adapter_scores import figure, figure_texts, is_met
from scripts.chain import run_chain
from scripts.demo import STAGES, parse_out, training
from scripts.page import page, picture, table

STAGE_C = STAGES["stage_c"] | {"stage_c": "stage_c"}


class Adapter(NamedTuple):
    """An adapter of the demo, trained by the experiment demo/<its name>.

    title: what the page calls it. kind: the module of scripts.adapter_scores that judges it. minutes: the
    most that training may take. networks: what it takes from the demo's runs, and the run of each. data:
    where in the demo's folder the pictures are that it learns from. draws: the command that draws them, if it
    needs others than the demo's. settings: what else training needs to be told; in both {out} is the folder.
    """

    title: str
    kind: str
    minutes: float
    networks: Mapping[str, str] = STAGE_C
    data: str = "data/train"
    draws: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()


ADAPTERS = {
    "lora": Adapter(
        "LoRA with a new token: a new object from 8 pictures",
        "lora",
        minutes=3,
        data="data/pillar/train",
        draws=("dataset_tools", "shapes", "{out}/data/pillar", "--object", "pillar"),
        settings=("recipe.regularisation.shards={out}/data/train",),
    ),
    "controlnet_canny": Adapter("ControlNet: edges", "controlnet", minutes=5),
    "controlnet_inpainting": Adapter("ControlNet: inpainting", "controlnet", minutes=5),
    "ip_adapter": Adapter("IP-Adapter: pictures as prompts", "ip_adapter", minutes=5),
    "lcm": Adapter("LCM: few steps", "lcm", minutes=5),
}


def commands(out: Path) -> dict[str, list[str]]:
    """The commands after `python -m`, by what they are for, in order."""
    steps: dict[str, list[str]] = {}
    for name, adapter in ADAPTERS.items():
        draws, settings = (
            [word.format(out=out) for word in words] for words in (adapter.draws, adapter.settings)
        )
        if draws:
            steps[f"Draw the data of {name}"] = draws
        steps[training_title(name)] = training(name, adapter.networks, out, adapter.data) + settings
    for name, adapter in ADAPTERS.items():
        places = ["--run", f"{out}/{name}", "--out", f"{out}/adapters/{name}"]
        steps[f"Judge {name}"] = ["scripts.adapter_scores", adapter.kind, *places]
    return steps


def training_title(name: str) -> str:
    """What the step that trains an adapter is called."""
    return f"Train {name}"


def gather(out: Path, seconds: Mapping[str, float]) -> dict[str, Any]:
    """All that was measured, by adapter; the first figure is the time that training took."""
    found = {}
    for name, adapter in ADAPTERS.items():
        scores = json.loads((out / "adapters" / name / "scores.json").read_text(encoding="utf-8"))
        time = figure("training", seconds[training_title(name)], at_most=60 * adapter.minutes, unit="s")
        found[name] = {"title": adapter.title} | scores | {"figures": [time, *scores["figures"]]}
    return found


def sections(out: Path, found: Mapping[str, Any]) -> list[str]:
    """The page's parts: of each adapter its figures and its pictures."""
    parts = []
    for name, scores in found.items():
        rows = [(*figure_texts(line), "" if is_met(line) else "not reached") for line in scores["figures"]]
        parts += [f"<h2>{scores['title']}</h2>", table(rows, ("", "asked", "measured", ""))]
        sheets = sorted((out / "adapters" / name).glob("*.png"))
        parts += [picture(sheet.read_bytes(), sheet.stem.replace("_", " ")) for sheet in sheets]
    return parts


def main() -> int:
    """Train, judge and report; returns the exit status."""
    out = parse_out("scripts.demo_adapters", "Train the demo's adapters one after the other, and judge them.")
    if not (out / "stage_c" / "weights").is_dir():
        print(f"error: {out} holds no trained Stage C; run `make demo` first", file=sys.stderr)
        return 2
    seconds = run_chain(commands(out), out / "adapters" / "timings.json")
    found = gather(out, seconds)
    write_whole(out / "adapters.json", json.dumps(found, indent=2) + "\n")
    write_whole(out / "adapters.html", page("Kaskade: the demo's adapters", sections(out, found)))
    print(f"\nDone in {sum(seconds.values()) / 60:.1f} minutes. Look at {out}/adapters.html")
    return 0


if __name__ == "__main__":
    sys.exit(main())
