"""LoRA: is the new object drawn where a prompt names it, in combinations never seen, and only there?"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL.Image import Image

from dataset_tools.judge import read
from dataset_tools.shapes_captions import full_caption
from dataset_tools.shapes_world import OBJECTS, Scene
from inference import Cascade, Picture
from modules.pictures import Row, draw_sheet, save_png
from scripts.adapter_scores import figure
from scripts.evaluate import read_folder, scene_of
from scripts.scores import mean, score_prompts

NUM_PROMPTS, BATCH_SIZE = 120, 40  # of each kind
LEAST_NAMED, MOST_OTHERS = 0.80, 0.05
COLUMNS, ROWS = 8, 3  # of the sheet, for each kind of prompt


def score(run: Path, out: Path, device: str = "cpu") -> dict[str, Any]:
    """Prompts of held-out combinations that name the new object, and others; see scripts.adapter_scores."""
    data = run.parent / "data"
    (name,) = OBJECTS
    scenes = {"named": held_out(data / name), "others": held_out(data)}
    cascade = Cascade.load(str(run.parent), device=device)
    drawn = {
        "named": draw(cascade, scenes["named"], [str(run)]),
        "others": draw(cascade, scenes["others"], [str(run)]),
        "without": draw(cascade, scenes["others"], []),
        "unlearnt": draw(cascade, scenes["named"], []),
    }
    accuracy = {
        key: score_prompts(scenes.get(key, scenes["others"]), pictures)["accuracy"]
        for key, pictures in drawn.items()
        if key != "unlearnt"
    }
    save_png(sheet(drawn), out / "sheet.png")
    shares = {key: share(name, pictures) for key, pictures in drawn.items()}
    return {"figures": figures(name, shares, accuracy), "accuracy": accuracy}


def held_out(folder: Path) -> list[Scene]:
    """The scenes of a data set's held-out split."""
    samples = read_folder(folder / "held_out", NUM_PROMPTS)
    return [scene for scene in map(scene_of, samples) if scene]


def draw(cascade: Cascade, scenes: Sequence[Scene], loras: list[str]) -> list[Picture]:
    """A picture of each scene's full caption; the seeds count up."""
    prompts, seeds = [full_caption(scene) for scene in scenes], range(len(scenes))
    return cascade.generate(prompts, seeds, batch_size=BATCH_SIZE, loras=loras)


def share(name: str, pictures: Sequence[Picture]) -> float:
    """Of the pictures in which the judge sees the shape of that name."""
    return mean([read(picture.image)["shape"] == name for picture in pictures])


def figures(
    name: str, shares: dict[str, float], accuracy: dict[str, dict[str, float]]
) -> list[dict[str, Any]]:
    """The table: what is asked, then what else the LoRA keeps, and what there was without it."""
    rest = "colour_shape_place_background"
    return [
        figure(f"{name} where the prompt names it", shares["named"], at_least=LEAST_NAMED),
        figure(f"{name} where it does not", shares["others"], at_most=MOST_OTHERS),
        figure(f"{name} named, all but size right", accuracy["named"][rest]),
        figure("other prompts, all but size right", accuracy["others"][rest]),
        figure("the same without the LoRA", accuracy["without"][rest]),
        figure(f"{name} where the prompt names it, without the LoRA", shares["unlearnt"]),
    ]


def sheet(drawn: dict[str, list[Picture]]) -> Image:
    """Prompts that name the object, then others, with the LoRA and below without it."""
    labels = {"named": "LoRA", "unlearnt": "without", "others": "LoRA", "without": "without"}
    rows = []
    for first, second in (("named", "unlearnt"), ("others", "without")):
        for start in range(0, COLUMNS * ROWS, COLUMNS):
            for key in (first, second):
                pictures = drawn[key][start : start + COLUMNS]
                captions = [picture.facts["prompt"] for picture in pictures] if key == second else []
                rows.append(Row([picture.image for picture in pictures], captions, labels[key]))
    return draw_sheet(rows)
