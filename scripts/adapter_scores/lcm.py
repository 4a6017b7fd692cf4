"""LCM: does the student draw in a few steps what its teacher draws in many?

From prompts that name all of a picture even one step of the teacher draws nearly the right one. Where a
prompt names colour and shape only, one step mixes all the places and backgrounds that it may choose from:
there it shows what the student has learnt.
"""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from PIL.Image import Image

from dataset_tools.shapes_captions import full_caption
from dataset_tools.shapes_world import Scene
from inference import Cascade, Picture, StageSettings
from inference.sources import fit, source_size
from modules.pictures import Row, draw_sheet, save_png
from scripts.adapter_scores import figure
from scripts.evaluate import read_folder, scene_of
from scripts.scores import score_pairs, score_prompts

NUM_PROMPTS, BATCH_SIZE = 200, 50
MANY, FEW = 20, (1, 2, 4, 8)
ASKED_STEPS, ASKED_DIFFERENCE = 4, 0.03
COLUMNS = 5  # of the sheet, for each kind of prompt
KINDS = ("full", "short")

Drawn = dict[tuple[str, str, int], list[Picture]]  # by who drew, kind of prompt, steps


def score(run: Path, out: Path, device: str = "cpu") -> dict[str, Any]:
    """The student in 1, 2, 4 and 8 steps, its teacher in as many and in 20; see scripts.adapter_scores."""
    samples = read_folder(run.parent / "data" / "held_out", NUM_PROMPTS)
    scenes = [scene for scene in map(scene_of, samples) if scene]
    drawn = draw(run, scenes, device)
    accuracy = {
        key: score_prompts(scenes, pictures)["accuracy"]["colour_and_shape"]
        for key, pictures in drawn.items()
    }
    save_png(sheet(drawn), out / "sheet.png")
    plot(accuracy, out / "accuracy_by_steps.png")
    return {"figures": figures(accuracy, drawn), "accuracy": named(accuracy)}


def prompt(kind: str, scene: Scene) -> str:
    """A prompt that names all of a scene, or its colour and shape."""
    return full_caption(scene) if kind == "full" else f"a {scene.colour} {scene.shape}"


def draw(run: Path, scenes: Sequence[Scene], device: str) -> Drawn:
    """All the pictures; the same seeds, and so the same noise to begin with, for everybody."""
    cascades = {
        "teacher": Cascade.load(str(run.parent), device=device),
        "student": Cascade.load(str(run.parent), device=device, stage_c=str(run)),
    }
    steps = {"teacher": (*FEW, MANY), "student": FEW}
    return {
        (who, kind, number): cascades[who].generate(
            [prompt(kind, scene) for scene in scenes],
            range(len(scenes)),
            batch_size=BATCH_SIZE,
            stage_c=StageSettings(steps=number),
        )
        for who in cascades
        for kind, number in itertools.product(KINDS, steps[who])
    }


def figures(accuracy: dict[tuple[str, str, int], float], drawn: Drawn) -> list[dict[str, Any]]:
    """The table: every number of steps, then how near one step comes to the end of the teacher's path."""
    told = {"full": "everything named", "short": "colour and shape named"}
    lines = []
    for kind in KINDS:
        teacher = accuracy["teacher", kind, MANY]
        for (who, of, steps), measured in accuracy.items():
            if of == kind:
                is_asked = who == "student" and steps == ASKED_STEPS
                least = round(teacher - ASKED_DIFFERENCE, 4) if is_asked else None
                lines.append(figure(f"{told[kind]}: {who}, {counted(steps)}", measured, at_least=least))
    for who in ("teacher", "student"):
        for kind in KINDS:
            what = f"{told[kind]}: {who}'s 1 step against the teacher's {MANY} from the same noise"
            near = likeness(drawn[who, kind, 1], drawn["teacher", kind, MANY])
            lines.append(figure(what, near, unit="dB"))
    return lines


def likeness(pictures: Sequence[Picture], others: Sequence[Picture]) -> float:
    """Mean PSNR in dB of pairs."""
    tensors = [[fit(p.image, source_size(p.image)) for p in each] for each in (pictures, others)]
    return score_pairs(*tensors)["psnr"]


def named(accuracy: dict[tuple[str, str, int], float]) -> dict[str, float]:
    """The same with keys that JSON knows."""
    return {f"{who}, {kind} prompts, {counted(n)}": value for (who, kind, n), value in accuracy.items()}


def counted(steps: int) -> str:
    """A number of steps in words."""
    return f"{steps} step" if steps == 1 else f"{steps} steps"


def sheet(drawn: Drawn) -> Image:
    """A row for everybody and number of steps, the same prompts and noise in each column."""
    order = [("teacher", MANY), *itertools.product(("student", "teacher"), FEW)]
    rows = []
    for who, steps in order:
        pictures = [picture for kind in KINDS for picture in drawn[who, kind, steps][:COLUMNS]]
        rows.append(Row([picture.image for picture in pictures], label=f"{who}, {counted(steps)}"))
        captions = [picture.facts["prompt"] for picture in pictures]
    return draw_sheet([*rows[:-1], rows[-1]._replace(captions=captions)])


def plot(accuracy: dict[tuple[str, str, int], float], path: Path) -> None:
    """Accuracy over the number of steps, for each kind of prompt."""
    canvas, axes = plt.subplots(1, len(KINDS), figsize=(8, 3), sharey=True, layout="constrained")
    for axis, kind in zip(axes, KINDS, strict=True):
        for who in ("teacher", "student"):
            points = [(steps, value) for (w, k, steps), value in accuracy.items() if (w, k) == (who, kind)]
            axis.plot(*zip(*points, strict=True), marker="o", label=who)
        ticks = (*FEW, MANY)
        axis.set_xscale("log", base=2)
        axis.set(title=f"{kind} prompts", xlabel="steps", xticks=ticks, xticklabels=ticks)
    axes[0].set_ylabel("colour and shape right")
    axes[0].legend()
    canvas.savefig(path, dpi=110)
    plt.close(canvas)
