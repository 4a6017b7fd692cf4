"""`python -m dataset_tools inspect SHARDS`: say what shards hold and what training makes of it.

Every picture is decoded. Broken samples are named and do not change the exit status.
"""

import argparse
import json
import os
from functools import partial
from pathlib import Path

from dataset_tools.arguments import add_max_megapixels, whole_number
from dataset_tools.buckets import RELEASED_RATIOS, Buckets
from dataset_tools.inspecting.findings import findings
from dataset_tools.inspecting.findings_text import findings_text
from dataset_tools.inspecting.survey import ShardSurvey, survey_shard
from dataset_tools.lookahead import Lookahead
from dataset_tools.progress import progress_bar
from dataset_tools.sources import COMMAND, expand

PLOT_SUFFIXES = (".png", ".svg", ".pdf")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("shards", nargs="+", metavar="SHARDS", help="file, folder, glob, braces or URL")
    parser.add_argument(
        "--image-size",
        type=whole_number(1),
        default=768,
        metavar="PX",
        help="data.image_size_px of the training to plan for (default: %(default)s)",
    )
    parser.add_argument(
        "--multiple",
        type=whole_number(1),
        default=32,
        metavar="PX",
        help="data.multiple_px of the training (default: %(default)s)",
    )
    parser.add_argument("--ratios", nargs="+", default=RELEASED_RATIOS, help="aspect ratios, such as 1/1 3/4")
    add_max_megapixels(parser)
    parser.add_argument("--plot", type=Path, metavar="PNG", help="draw the figures into this file")
    parser.add_argument("--json", action="store_true", help="print everything as JSON, and nothing else")
    parser.add_argument(
        "--workers",
        type=whole_number(0),
        default=min(8, os.cpu_count() or 1),
        help="processes that read shards; 0 works in the main one (default: one per core, at most 8)",
    )


def main(args: argparse.Namespace) -> int:
    """Run the command. Raises ValueError, OSError or CacheError for what the user must change."""
    buckets = Buckets(args.image_size**2, args.ratios, args.multiple)
    if commands := [entry for entry in args.shards if entry.startswith(COMMAND)]:
        raise ValueError(f"SHARDS: {commands[0]}: inspect runs no commands; put what it says into a file")
    shards = expand(args.shards, "SHARDS")
    if args.plot:
        _check_plot(args.plot)
    num_workers = min(args.workers, len(shards)) if len(shards) > 1 else 0
    surveys = _survey(shards, args.max_megapixels, num_workers)
    found = findings(surveys, buckets)
    if args.plot and found["samples"]:
        from dataset_tools.inspecting.plot import save_plot  # matplotlib is slow to import

        save_plot(args.plot, [picture for survey in surveys for picture in survey.pictures], found)
    print(json.dumps(found, indent=1) if args.json else "\n".join(findings_text(found)))
    return 0


def _check_plot(path: Path) -> None:
    """Raise before the long part when the plot could not be written after it."""
    if path.suffix.lower() not in PLOT_SUFFIXES:
        raise ValueError(f"--plot {path}: expected a name ending in {' or '.join(PLOT_SUFFIXES)}")
    if not path.resolve().parent.is_dir():
        raise FileNotFoundError(f"--plot {path}: no such folder")


def _survey(shards: list[str], max_megapixels: float, num_workers: int) -> list[ShardSurvey]:
    surveys = []
    bar = progress_bar("inspecting", len(shards))
    work = partial(survey_shard, max_megapixels=max_megapixels)
    with bar as advance, Lookahead(work, shards, num_workers) as done:
        for number in range(len(shards)):
            surveys.append(done[number])
            advance(1)
    return surveys
