"""Making both sides' pictures, those that are missing."""

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from inference.compare.plan import Plan, Question
from inference.compare.sides import Side, match
from inference.config import Config
from inference.naming import naming
from inference.pictures import write_picture_as
from inference.pipeline import Cascade
from inference.progress import ProgressBar
from inference.settings import Request
from inference.tasks import TASKS
from modules.schema import ConfigError

WEIGHTS = "weights.json"  # beside a side's pictures: checksums of what they were made with


def make_side(side: Side, plan: Plan, folder: Path) -> int:
    """Make, or copy, what is missing of a side's pictures; returns how many these were.

    Raises ValueError or FileNotFoundError, before anything is computed, for what cannot be made.
    """
    missing = [q for q in plan.questions if not plan.picture(folder, side.name, q).is_file()]
    (folder / side.name.lower()).mkdir(parents=True, exist_ok=True)
    with naming(side.name):
        if side.config is None:
            _copy(side, plan, missing, folder)
        else:
            _draw(side, side.config, plan, missing, folder)
    return len(missing)


def requests_of(config: Config, questions: Sequence[Question]) -> list[Request]:
    """What each question asks of a side."""
    names = (
        "negative_prompt",
        "width_px",
        "height_px",
        "loras",
        "controls",
        "image_prompt",
        "stage_c",
        "stage_b",
    )
    shared = {name: getattr(config, name) for name in names}
    return [Request(prompt=q.prompt, seed=q.seed, **shared) for q in questions]


def _draw(side: Side, config: Config, plan: Plan, missing: Sequence[Question], folder: Path) -> None:
    cascade = config.cascade()
    _check_weights(cascade, folder / side.name.lower() / WEIGHTS)
    if not missing:
        return
    batches = cascade.batches(requests_of(config, missing), config.batch_size)
    there = len(plan.questions) - len(missing)
    print(
        f"{side.name}: {cascade.described()}; {len(missing)} pictures, {there} there already", file=sys.stderr
    )
    left = iter(missing)
    with ProgressBar(len(batches)) as bar:
        for picture in cascade.run(batches, bar):
            write_picture_as(picture, plan.picture(folder, side.name, next(left)))


def _check_weights(cascade: Cascade, path: Path) -> None:
    """Keep pictures of one set of weights apart from those of another."""
    now = cascade.networks.fingerprints(TASKS["text_to_image"].networks)
    if path.is_file():
        try:
            before = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            before = None
        if before != now:
            raise ConfigError(f"the weights have changed since {path.parent} was begun; name another output=")
        return
    path.write_text(json.dumps(now), encoding="utf-8")


def _copy(side: Side, plan: Plan, missing: Sequence[Question], folder: Path) -> None:
    """Take over pictures from elsewhere, as PNG."""
    assert side.pictures is not None
    files = match(side.pictures, [(q.prompt, q.seed) for q in plan.questions])
    for question in missing:
        source, place = files[question.number], plan.picture(folder, side.name, question)
        try:
            with Image.open(source) as opened:
                image = opened.convert("RGB")
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise ConfigError(f"{source}: cannot be read as a picture ({error})") from None
        unfinished = place.with_name(f".{place.name}.part")
        image.save(unfinished, "PNG")
        os.replace(unfinished, place)
