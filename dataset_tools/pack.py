"""`python -m dataset_tools pack SRC OUT`: make shards from a folder of pictures and captions.

Captions come from a text file beside each picture (cat.jpg, cat.txt), or from metadata.jsonl or metadata.csv
in any folder or one other .csv or .jsonl at the top, with the columns file_name and text; other columns go
to the json beside the picture. Pictures are stored as they are unless re-encoding is asked for. What is left
out is listed in OUT/report.csv. Run again, it packs only what changed; so a run that was stopped goes on.
"""

import argparse
import os
from pathlib import Path

from dataset_tools.arguments import add_max_megapixels, num_bytes, whole_number
from dataset_tools.packing.packer import REPORT_NAME, Packer, Summary, write_report
from dataset_tools.packing.prepare import ENCODINGS, Encoding
from dataset_tools.packing.scan import LeftOut, scan
from dataset_tools.progress import progress_bar
from dataset_tools.shards import ShardLimits


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("source", metavar="SRC", type=Path, help="folder of pictures, with subfolders")
    parser.add_argument("out", metavar="OUT", type=Path, help="folder for the shards; made if missing")
    parser.add_argument("--captions", metavar="FILE", type=Path, help="the .csv or .jsonl of captions to use")
    parser.add_argument(
        "--shard-samples",
        type=whole_number(1),
        default=ShardLimits().max_samples,
        metavar="N",
        help="samples per shard, at most (default: %(default)s)",
    )
    parser.add_argument(
        "--shard-bytes",
        type=num_bytes,
        default=ShardLimits().max_bytes,
        metavar="SIZE",
        help="size of a shard, at most, such as 500M (default: 1G)",
    )
    parser.add_argument("--reencode", choices=sorted(ENCODINGS), help="encode every picture anew")
    parser.add_argument(
        "--quality",
        type=whole_number(1, 100),
        default=95,
        metavar="Q",
        help="of jpg and webp, 1 to 100 (default: %(default)s)",
    )
    parser.add_argument(
        "--max-size", type=whole_number(1), metavar="PX", help="shrink pictures whose longer side is longer"
    )
    add_max_megapixels(parser)
    parser.add_argument(
        "--workers",
        type=whole_number(0),
        default=min(8, os.cpu_count() or 1),
        metavar="N",
        help="processes that read pictures; 0 works in the main one (default: one per core, at most 8)",
    )


def main(args: argparse.Namespace) -> int:
    """Run the command and say what it did. Raises ValueError or OSError for what the user must change."""
    source, out = args.source, args.out
    if out.exists() and source.exists() and out.samefile(source):
        raise ValueError(f"{out}: SRC and OUT are the same folder; shards need a folder of their own")
    if out.exists() and not out.is_dir():
        raise NotADirectoryError(f"{out}: expected a folder for the shards, found a file")
    found = scan(source, out, args.captions)
    if not found.entries:
        others = f"; {len(found.left_out)} other files" if found.left_out else ""
        raise ValueError(f"{source}: holds no pictures{others}")
    limits = ShardLimits(args.shard_samples, args.shard_bytes)
    encoding = Encoding(args.reencode, args.quality, args.max_size, args.max_megapixels)
    with progress_bar("packing", len(found.entries)) as advance:
        summary = Packer(found.entries, out, limits, encoding, args.workers, advance).run()
    left_out = found.left_out + summary.left_out
    write_report(out, left_out)
    if not summary.samples:
        raise ValueError(f"{source}: no picture can be read; the reasons are in {out / REPORT_NAME}")
    _print_summary(summary, left_out, out)
    unreadable = {row.file for row in summary.left_out}
    silent = sum(entry.caption is None and entry.source not in unreadable for entry in found.entries)
    if silent:
        print(f"{silent} samples have no caption; training skips them unless data.missing_caption=empty")
    return 0


def _print_summary(summary: Summary, left_out: list[LeftOut], out: Path) -> None:
    made = summary.shards - summary.kept
    again = f" ({made} packed, {summary.kept} unchanged)" if summary.kept else ""
    removed = f", {summary.removed} old ones removed" if summary.removed else ""
    print(f"{summary.samples} samples in {summary.shards} shards{again}{removed}: {out}")
    if left_out:
        num_unreadable, num_others = len(summary.left_out), len(left_out) - len(summary.left_out)
        counts = f"{num_unreadable} unreadable pictures and {num_others} other files"
        print(f"left out {counts}; the reasons are in {out / REPORT_NAME}")
