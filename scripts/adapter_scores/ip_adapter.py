"""IP-Adapter: does a picture as prompt give one of the same colour and shape, alone and beside a text?"""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from dataset_tools.images import open_image
from dataset_tools.judge import read
from dataset_tools.records import Sample
from dataset_tools.shapes_captions import full_caption
from dataset_tools.shapes_world import COLOURS, Scene
from inference import Cascade, Picture, Request
from inference.adapters import ImagePromptSettings
from modules.pictures import Row, draw_sheet, save_png
from scripts.adapter_scores import figure
from scripts.evaluate import read_folder, scene_of
from scripts.scores import mean, score_prompts

NUM_ALONE, NUM_CONTRADICTED, NUM_SWITCHED_OFF = 200, 60, 20
BATCH_SIZE = 50
LEAST_KEPT = 0.85
SCALES = (1.0, 0.5)  # at which picture and text contradict each other
COLUMNS, ROWS = 10, 2  # of the sheet, for each kind

Drawn = dict[str, list[Picture]]


def score(run: Path, out: Path, device: str = "cpu") -> dict[str, Any]:
    """Held-out pictures as prompts, without text and with one that names another colour."""
    samples = read_folder(run.parent / "data" / "held_out", NUM_ALONE)
    scenes = [scene for scene in map(scene_of, samples) if scene]
    cascade = Cascade.load(str(run.parent), device=device)
    with tempfile.TemporaryDirectory() as folder:
        drawn = draw(cascade, Prompts(run, save_pictures(samples, Path(folder))), scenes)
    accuracy = {key: score_prompts(scenes[: len(drawn[key])], drawn[key]) for key in ("alone", "nothing")}
    save_png(sheet(samples, scenes, drawn), out / "sheet.png")
    return {"figures": figures(scenes, drawn, accuracy), "accuracy": accuracy}


class Prompts:
    """Requests with an image prompt each. paths: of the pictures, the first one for seed 0."""

    def __init__(self, run: Path, paths: Sequence[str]) -> None:
        self.run, self.paths = run, paths

    def requests(self, texts: Sequence[str], scale: float = 1.0) -> list[Request]:
        """One for each text."""
        return [
            Request(
                prompt=text,
                seed=seed,
                image_prompt=ImagePromptSettings(str(self.run), (self.paths[seed],), scale),
            )
            for seed, text in enumerate(texts)
        ]


def save_pictures(samples: Sequence[Sample], folder: Path) -> list[str]:
    """The samples' pictures as files."""
    paths = [folder / f"{number}.png" for number in range(len(samples))]
    for sample, path in zip(samples, paths, strict=True):
        open_image(sample.image_bytes).save(path)
    return [str(path) for path in paths]


def draw(cascade: Cascade, prompts: Prompts, scenes: Sequence[Scene]) -> Drawn:
    """Pictures of each kind; the same seeds, and so the same noise to begin with, in all."""
    contradicting = [full_caption(other_colour(scene)) for scene in scenes[:NUM_CONTRADICTED]]
    agreeing = [full_caption(scene) for scene in scenes[:NUM_SWITCHED_OFF]]
    requests = {
        "alone": prompts.requests([""] * len(scenes)),
        "nothing": [Request(seed=seed) for seed in range(NUM_CONTRADICTED)],
        "switched off": prompts.requests(agreeing, scale=0.0),
        "text alone": [Request(prompt=text, seed=seed) for seed, text in enumerate(agreeing)],
    }
    requests |= {f"other colour {scale}": prompts.requests(contradicting, scale) for scale in SCALES}
    return {key: list(cascade.run(cascade.batches(rows, BATCH_SIZE))) for key, rows in requests.items()}


def other_colour(scene: Scene) -> Scene:
    """The same scene in the next colour."""
    colours = list(COLOURS)
    return scene._replace(colour=colours[(colours.index(scene.colour) + 1) % len(colours)])


def figures(
    scenes: Sequence[Scene], drawn: Drawn, accuracy: dict[str, dict[str, Any]]
) -> list[dict[str, Any]]:
    """The table: what is asked, then what else the picture gives, then how text and picture share."""
    alone, nothing = (accuracy[key]["accuracy"] for key in ("alone", "nothing"))
    both = "colour_and_shape"
    lines = [figure("picture without text: colour and shape kept", alone[both], at_least=LEAST_KEPT)]
    lines += [figure(f"picture without text: {name} kept", alone[name]) for name in Scene._fields]
    lines.append(figure("neither picture nor text: colour and shape by chance", nothing[both]))
    for scale in SCALES:
        shares = sharing(scenes, drawn[f"other colour {scale}"])
        lines += [figure(f"text says another colour, scale {scale}: {k}", v) for k, v in shares.items()]
    pairs = zip(drawn["switched off"], drawn["text alone"], strict=True)
    same = [a.image.tobytes() == b.image.tobytes() for a, b in pairs]
    return [*lines, figure("scale 0 gives the bits of the text alone", mean(same), at_least=1.0)]


def sharing(scenes: Sequence[Scene], pictures: Sequence[Picture]) -> dict[str, float]:
    """In how many pictures the text wins and in how many the picture, and whether they keep what both say."""
    pairs = list(zip(scenes[: len(pictures)], [read(picture.image) for picture in pictures], strict=True))
    return {
        "the text's colour": mean([found["colour"] == other_colour(scene).colour for scene, found in pairs]),
        "the picture's colour": mean([found["colour"] == scene.colour for scene, found in pairs]),
        "the shape of both": mean([found["shape"] == scene.shape for scene, found in pairs]),
    }


def sheet(samples: Sequence[Sample], scenes: Sequence[Scene], drawn: Drawn) -> Image.Image:
    """The picture that was the prompt, below it what was drawn: without text, and with contradicting ones."""
    rows = []
    for start in range(0, COLUMNS * ROWS, COLUMNS):
        part = slice(start, start + COLUMNS)
        prompts = [open_image(sample.image_bytes) for sample in samples[part]]
        rows.append(Row(prompts, label="picture as prompt"))
        rows.append(Row([picture.image for picture in drawn["alone"][part]], label="drawn without text"))
        for scale in SCALES:
            pictures = drawn[f"other colour {scale}"][part]
            captions = [other_colour(scene).colour for scene in scenes[part]]
            rows.append(Row([p.image for p in pictures], captions, f"text: other colour; scale {scale}"))
    return draw_sheet(rows)
