"""ControlNet: do pictures follow the control, and the prompt in what the control leaves open?

Edges: where they are, on scenes that training never showed, with prompts that say little or everything.
Inpainting: whether what surrounds a random gap stays, and what fills a gap that takes the place of the whole
object when the prompt asks for another one.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dataset_tools.images import open_image
from dataset_tools.shapes_captions import full_caption
from dataset_tools.shapes_world import COLOURS, PLACES, RADII_PX, SHAPES, SIZE_PX, Scene
from inference import Cascade, StageSettings
from inference.sources import to_pixels
from modules.adapters.filters import ControlFilter, build_filter
from modules.adapters.filters.inpainting import painted_over
from modules.metrics import psnr
from modules.pictures import save_png
from modules.schema import shown
from modules.weights import find_weights, read_header
from scripts.adapter_scores import figure
from scripts.adapter_scores._controls import Drawn, Trial, draw, means, sheet
from scripts.evaluate import read_folder, scene_of

NUM_SCENES = 120
EVERYTHING = "everything named"  # in the prompt: there is little left that a control could improve
REPLACED = "another object named"
TOLERANCE_PX = 1  # by which an edge may lie beside that of the control
GAP_MARGIN_PX = 4  # of a gap around the object that it takes the place of
ASKED_F1_ABOVE_BASE = 0.2
ASKED_DB_ABOVE_BASE = 10.0
ASKED_REPLACED = 0.8
Figures = list[dict[str, Any]]


def score(run: Path, out: Path, device: str = "cpu") -> dict[str, Any]:
    """A ControlNet for edges or for inpainting, as the run's filter says; see scripts.adapter_scores."""
    spec = read_header(find_weights(run, "controlnet")).get("filter") or {}
    if spec.get("name") not in ("canny", "inpainting"):
        raise ValueError(f"{run}: expected the filter canny or inpainting, found {shown(spec.get('name'))}")
    samples = read_folder(run.parent / "data" / "held_out", NUM_SCENES)
    scenes = [scene for scene in map(scene_of, samples) if scene]
    images = torch.stack([to_pixels(open_image(sample.image_bytes)) for sample in samples])
    trials = {"canny": edge_trials, "inpainting": gap_trials}[spec["name"]]
    figures_of = {"canny": edge_figures, "inpainting": gap_figures}[spec["name"]]
    made, cascade = build_filter(spec), Cascade.load(str(run.parent), device=device)
    found: Figures = []
    for told, trial in trials(made, scenes, images).items():
        drawn = draw(cascade, run, trial)
        save_png(sheet(trial, images, drawn), out / f"{told.replace(',', '').replace(' ', '_')}.png")
        found += figures_of(told, made, trial, images, drawn)
    return {"figures": found, "filter": spec, "num_pictures": len(scenes)}


def pair(what: str, measured: tuple[float, float], above: float | None = None, unit: Any = "%") -> Figures:
    """Two lines: without control, and with it, for which `above` the other may be asked."""
    base, controlled = measured
    least = None if above is None else round(base + above, 4)
    return [
        figure(f"{what}, without control", base, unit=unit),
        figure(what, controlled, at_least=least, unit=unit),
    ]


def edge_trials(made: ControlFilter, scenes: Sequence[Scene], images: Tensor) -> dict[str, Trial]:
    """Prompts that leave form, or place and size, to the edges, and prompts that name it all.

    Guidance strengthens the prompt against the control, also in what it does not say.
    """
    controls = made(images, [])
    colours = [f"{scene.colour} on a {scene.background} background" for scene in scenes]
    objects = [f"a {scene.colour} {scene.shape}" for scene in scenes]
    return {
        "colours named": Trial(colours, controls, scenes),
        "colours named, no guidance": Trial(colours, controls, scenes, StageSettings(guidance=1.0)),
        "object named": Trial(objects, controls, scenes),
        EVERYTHING: Trial([full_caption(scene) for scene in scenes], controls, scenes),
    }


def edge_figures(told: str, made: ControlFilter, trial: Trial, images: Tensor, drawn: Drawn) -> Figures:
    """How well edges agree with the control's, and form, size and place as the judge reads them."""
    agreement = means([edge_f1(trial.controls, made(pixels, [])) for pixels in drawn.pixels()])
    above = None if told == EVERYTHING else ASKED_F1_ABOVE_BASE
    lines = pair(f"{told}: edges where the control has them (F1, {TOLERANCE_PX} px)", agreement, above)
    for what in ("shape", "size", "place"):
        lines += pair(f"{told}: {what} as in the control", drawn.accuracy(trial, what))
    return lines


def edge_f1(expected: Tensor, found: Tensor) -> list[float]:
    """Harmonic mean of precision and recall of edges [B, 1, H, W], 0 or 1, each picture's for itself."""
    width = 2 * TOLERANCE_PX + 1
    near_expected, near_found = (F.max_pool2d(edges, width, 1, TOLERANCE_PX) for edges in (expected, found))
    precision = (found * near_expected).sum((1, 2, 3)) / found.sum((1, 2, 3)).clamp(min=1)
    recall = (expected * near_found).sum((1, 2, 3)) / expected.sum((1, 2, 3)).clamp(min=1)
    f1: list[float] = (2 * precision * recall / (precision + recall).clamp(min=1e-9)).tolist()
    return f1


def gap_trials(made: ControlFilter, scenes: Sequence[Scene], images: Tensor) -> dict[str, Trial]:
    """Random gaps, with prompts that name everything or only the object; and the object replaced."""
    generators = [torch.Generator().manual_seed(number) for number in range(len(images))]
    controls = made(images, generators)
    others = [another(scene) for scene in scenes]
    return {
        EVERYTHING: Trial([full_caption(scene) for scene in scenes], controls, scenes),
        "object named": Trial([f"a {scene.colour} {scene.shape}" for scene in scenes], controls, scenes),
        REPLACED: Trial(
            [f"a {scene.colour} {scene.shape}" for scene in others],
            painted_over(images, torch.stack([gap(scene) for scene in scenes])),
            others,
        ),
    }


def gap_figures(told: str, made: ControlFilter, trial: Trial, images: Tensor, drawn: Drawn) -> Figures:
    """How well what surrounds the gaps is kept, and whether the object is what the prompt says."""
    known = 1 - trial.controls[:, 3:]
    kept = means([surroundings_psnr(pixels, images, known) for pixels in drawn.pixels()])
    above = None if told == EVERYTHING else ASKED_DB_ABOVE_BASE
    lines = pair(f"{told}: surroundings of the gap against the original", kept, above, "dB")
    base, controlled = drawn.accuracy(trial, "colour_and_shape")
    replaced = told == REPLACED
    lines.append(figure(f"{told}: colour and shape as named, without control", base))
    asked = ASKED_REPLACED if replaced else None
    lines.append(figure(f"{told}: colour and shape as named", controlled, at_least=asked))
    return lines + (pair(f"{told}: drawn into the gap", drawn.accuracy(trial, "place")) if replaced else [])


def surroundings_psnr(pixels: Tensor, originals: Tensor, known: Tensor) -> list[float]:
    """PSNR in dB over the pixels where `known` [B, 1, H, W] is 1, each picture's for itself."""
    # Errors outside are 0; psnr takes the mean over all pixels, of which only a share counts.
    whole = psnr(torch.where(known > 0, pixels, originals), originals)
    decibels: list[float] = (whole + 10 * known.mean((1, 2, 3)).log10()).tolist()
    return decibels


def another(scene: Scene) -> Scene:
    """The same place, size and background with the next colour and the next shape."""
    colours, shapes = list(COLOURS), list(SHAPES)
    return scene._replace(
        colour=colours[(colours.index(scene.colour) + 1) % len(colours)],
        shape=shapes[(shapes.index(scene.shape) + 1) % len(shapes)],
    )


def gap(scene: Scene) -> Tensor:
    """A mask [1, H, W] of a square around a scene's object, 1 inside."""
    x, y = PLACES[scene.place]
    reach = 1.2 * RADII_PX[scene.size] + GAP_MARGIN_PX
    mask = torch.zeros(1, SIZE_PX, SIZE_PX)
    top, bottom, left, right = (max(0, round(edge)) for edge in (y - reach, y + reach, x - reach, x + reach))
    mask[:, top:bottom, left:right] = 1
    return mask
