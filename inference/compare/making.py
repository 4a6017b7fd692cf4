"""Making both sides' pictures, those that are missing."""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from inference.compare.plan import Plan, Question
from inference.compare.sides import Side, match
from inference.config import Config
from inference.manifest import as_json
from inference.naming import naming
from inference.pictures import write_picture_as
from inference.pipeline import Cascade
from inference.progress import ProgressBar
from inference.settings import Request
from inference.sources import open_source
from inference.tasks import TASKS
from modules.pictures import save_png
from modules.schema import ConfigError
from modules.whole_files import write_whole

MADE_WITH = "made_with.json"  # beside a side's pictures: checksums of the weights, and the settings
OF_REQUESTS = (
    "negative_prompt",
    "width_px",
    "height_px",
    "loras",
    "controls",
    "image_prompt",
    "stage_c",
    "stage_b",
)
OF_NETWORKS = ("dtype", "quantize", "tile_px")  # what else changes pictures


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
    shared = {name: getattr(config, name) for name in OF_REQUESTS}
    return [Request(prompt=q.prompt, seed=q.seed, **shared) for q in questions]


def _draw(side: Side, config: Config, plan: Plan, missing: Sequence[Question], folder: Path) -> None:
    cascade = config.cascade()
    _check_made_with(_made_with(cascade, config), folder / side.name.lower() / MADE_WITH)
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


def _made_with(cascade: Cascade, config: Config) -> dict[str, Any]:
    plain = asdict(config)
    settings = {name: plain[name] for name in OF_REQUESTS + OF_NETWORKS}
    return as_json(settings | {"weights": cascade.networks.fingerprints(TASKS["text_to_image"].networks)})


def _check_made_with(now: dict[str, Any], path: Path) -> None:
    """Keep pictures of some weights and settings apart from those of others; with the first, note them."""
    if not path.is_file():
        write_whole(path, json.dumps(now))
        return
    try:
        before = dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError):
        raise ConfigError(f"{path}: damaged; name another output=") from None
    for name, value in now.items():
        if before.get(name) != value:
            raise ConfigError(f"{name}: not as when {path.parent} was begun; name another output=")


def _copy(side: Side, plan: Plan, missing: Sequence[Question], folder: Path) -> None:
    """Take over pictures from elsewhere, as PNG."""
    assert side.pictures is not None
    files = match(side.pictures, [(q.prompt, q.seed) for q in plan.questions])
    for question in missing:
        source, place = files[question.number], plan.picture(folder, side.name, question)
        save_png(open_source(str(source), "pictures"), place)
