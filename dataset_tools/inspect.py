"""`python -m dataset_tools inspect SHARDS`: say what shards hold and what training makes of it.

Every picture is decoded. Broken samples are named and do not change the exit status.
"""

import argparse
import json
import os
from pathlib import Path
from typing import Any

from dataset_tools.arguments import whole_number
from dataset_tools.buckets import RELEASED_RATIOS, Buckets
from dataset_tools.findings import LONG_CAPTION_WORDS, findings
from dataset_tools.lookahead import Lookahead
from dataset_tools.progress import progress_bar
from dataset_tools.sources import expand
from dataset_tools.survey import ShardSurvey, survey_shard

MAX_NAMED = 20
"""Lines of each list that are printed; --json has all."""
MAX_IN_GROUP = 4
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
    parser.add_argument("--plot", type=Path, metavar="PNG", help="draw the figures into this file")
    parser.add_argument("--json", action="store_true", help="print everything as JSON, and nothing else")
    parser.add_argument(
        "--workers",
        type=whole_number(0),
        default=min(8, os.cpu_count() or 1),
        help="processes that read shards; 0 works in the main one (default: one per core, at most 8)",
    )


def main(args: argparse.Namespace) -> int:
    """Run the command. Raises ValueError or OSError for what the user must change."""
    buckets = Buckets(args.image_size**2, args.ratios, args.multiple)
    shards = expand(args.shards)
    if args.plot:
        _check_plot(args.plot)
    surveys = _survey(shards, min(args.workers, len(shards) - 1))
    found = findings(surveys, buckets)
    if args.plot and found["samples"]:
        from dataset_tools.plot import save_plot  # matplotlib is slow to import

        save_plot(args.plot, [picture for survey in surveys for picture in survey.pictures], found)
    print(json.dumps(found, indent=1) if args.json else "\n".join(_text(found)))
    return 0


def _check_plot(path: Path) -> None:
    """Raise before the long part when the plot could not be written after it."""
    if path.suffix.lower() not in PLOT_SUFFIXES:
        raise ValueError(f"--plot {path}: expected a name ending in {' or '.join(PLOT_SUFFIXES)}")
    if not path.resolve().parent.is_dir():
        raise FileNotFoundError(f"--plot {path}: no such folder")


def _survey(shards: list[str], num_workers: int) -> list[ShardSurvey]:
    surveys = []
    bar = progress_bar("inspecting", len(shards))
    with bar as advance, Lookahead(survey_shard, shards, num_workers) as done:
        for number in range(len(shards)):
            surveys.append(done[number])
            advance(1)
    return surveys


def _text(found: dict[str, Any]) -> list[str]:
    """Write the findings as lines for people."""
    lines = [f"{found['samples']} usable samples in {found['shards']} shards, {_size(found['bytes'])}"]
    lines += _named(f"{len(found['broken'])} broken", [_broken_line(row) for row in found["broken"]])
    if not found["samples"]:
        return [*lines, "nothing to train on"]
    formats = ", ".join(f"{count} {ext}" for ext, count in found["formats"].items())
    lines += ["", f"formats: {formats}"]
    lines += [f"{name}: {_range(found[key], unit)}" for name, key, unit in _SPREADS]
    lines += ["", *_bucket_table(found["buckets"])]
    return [*lines, "", *_caption_lines(found), *_duplicate_lines(found)]


_SPREADS = (
    ("width", "width_px", " px"),
    ("height", "height_px", " px"),
    ("width / height", "aspect_ratio", ""),
)


def _range(spread: dict[str, float], unit: str = "") -> str:
    low, middle, high = (f"{spread[key]:.4g}" for key in ("min", "median", "max"))
    return f"{low} to {high}{unit}, half below {middle}"


def _bucket_table(rows: list[dict[str, Any]]) -> list[str]:
    lines = [f"{'bucket':>11} {'pictures':>9} {'cropped: mean':>14} {'most':>6} {'enlarged':>9} {'up to':>6}"]
    for row in rows:
        size = f"{row['width_px']}x{row['height_px']}"
        cropped = f"{row['mean_cropped']:>14.1%} {row['max_cropped']:>6.1%}"
        scale = f"{row['max_scale']:.2f}x" if row["enlarged"] else ""
        lines.append(f"{size:>11} {row['pictures']:>9} {cropped} {row['enlarged']:>9} {scale:>6}".rstrip())
    return lines


def _caption_lines(found: dict[str, Any]) -> list[str]:
    captions = found["captions"]
    total = found["samples"] - captions["missing"] - captions["empty"]
    absent = f"{captions['missing']} missing, {captions['empty']} empty"
    lines = [f"captions: {total}, {captions['different']} different; {absent}"]
    if captions["words"]:
        lines.append(f"words: {_range(captions['words'])}")
    if captions["long"]:
        lines.append(
            f"{captions['long']} have more than {LONG_CAPTION_WORDS} words; their end may be cut off"
        )
    return lines


_DUPLICATES = {
    "keys": "keys used more than once",
    "identical": "pictures that are there more than once",
    "similar": "groups of pictures that look alike",
}


def _duplicate_lines(found: dict[str, Any]) -> list[str]:
    lines = []
    for kind, title in _DUPLICATES.items():
        groups = found["duplicates"][kind]
        lines += _named(f"{len(groups)} {title}", [_group_line(group) for group in groups])
    return lines


def _group_line(group: list[str]) -> str:
    more = f"  and {len(group) - MAX_IN_GROUP} more" if len(group) > MAX_IN_GROUP else ""
    return "  ".join(group[:MAX_IN_GROUP]) + more


def _named(title: str, rows: list[str]) -> list[str]:
    """Write a title and, below it, as many rows as are worth reading."""
    more = [f"  and {len(rows) - MAX_NAMED} more; --json lists all"] if len(rows) > MAX_NAMED else []
    return [title + (":" if rows else ""), *(f"  {row}" for row in rows[:MAX_NAMED]), *more]


def _broken_line(row: dict[str, str]) -> str:
    return f"{row['shard']}{':' if row['key'] else ''}{row['key']}: {row['reason']}"


def _size(num_bytes: float) -> str:
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if num_bytes < 1024:
            return f"{num_bytes:.4g} {unit}"
        num_bytes /= 1024
    return f"{num_bytes:.4g} TiB"
