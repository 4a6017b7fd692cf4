"""Ours beside what people would use instead, in one run.

python -m benchmarks [cpu|gpu] [--rows NAME,…] [--small] [--seconds N] [--without NAME,…]
                               [--out FOLDER]
python -m benchmarks [cpu|gpu] --list
python -m benchmarks table [--out FOLDER] [--into docs/performance.md]

Every row lets ours and the peer take turns, several times, and tells medians and quartiles; the ratio of the
medians is the figure. Results go to benchmarks/results/, one JSON file for each machine; `table` makes the
table and the plot in docs/performance.md of them. --small: tiny sizes, which show that a row runs, also those
of the GPU on a CPU; they measure nothing and go to a temporary folder. --seconds: how long each row's rounds
go on. --without compiled: leave out what takes long to compile.
"""

import argparse
import shlex
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import torch

from benchmarks.frame import Row
from benchmarks.machine import commit, describe, versions
from benchmarks.machine import load as machine_load
from benchmarks.processes import RowFailed, run_row
from benchmarks.results import FOLDER, Results
from benchmarks.rows import chosen
from benchmarks.table import line_of, write_document
from modules.command_lines import Parser, positive
from modules.schema import one_line

DOCUMENT = Path(__file__).parents[1] / "docs" / "performance.md"


def arguments() -> Parser:
    parser = Parser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("what", nargs="?", default="cpu", choices=["cpu", "gpu", "table"])
    parser.add_argument("--rows", help="only these, with commas between them")
    parser.add_argument("--list", action="store_true", help="name the rows and what they are to reach")
    parser.add_argument("--small", action="store_true", help="tiny sizes: does everything run?")
    parser.add_argument("--seconds", type=positive(float), help="of each row's rounds (default: its own)")
    parser.add_argument("--without", help="leave out variants with this in their names, such as compiled")
    parser.add_argument("--out", type=Path, help="folder of results (default: benchmarks/results)")
    parser.add_argument("--into", type=Path, default=DOCUMENT, help="the document that `table` writes into")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    options = arguments().parse_args(argv)
    try:
        if options.what == "table":
            write_document(options.out or FOLDER, options.into)
            return 0
        rows = chosen(options.what, options.rows)
        if options.list:
            for row in rows:
                print(f"{row.name}: {row.what}")
            return 0
        if options.what == "gpu" and not options.small and not torch.cuda.is_available():
            raise ValueError("gpu: there is no CUDA device here; --small shows on a CPU that the rows run")
    except (ValueError, OSError) as error:
        print("error:", one_line(error), file=sys.stderr)
        return 2
    return measure(rows, options, ["benchmarks", *(sys.argv[1:] if argv is None else argv)])


def measure(rows: Sequence[Row], options: argparse.Namespace, command: list[str]) -> int:
    """Measure the rows, write each as soon as it is done, and say how it went."""
    device = torch.device("cuda" if options.what == "gpu" and torch.cuda.is_available() else "cpu")
    folder = options.out or (Path(tempfile.mkdtemp(prefix="benchmarks-")) if options.small else FOLDER)
    about = {"commit": commit(), "versions": versions(), "command": f"python -m {shlex.join(command)}"}
    settings = {"small": options.small} | ({"seconds": options.seconds} if options.seconds else {})
    settings |= {"without": options.without.split(",")} if options.without else {}
    failed = 0
    for number, row in enumerate(rows, start=1):
        print(f"[{number}/{len(rows)}] {row.name}: {row.what}", flush=True)
        began, load = time.monotonic(), machine_load()
        try:
            answer = run_row(row.name, device.type, settings)
        except RowFailed as error:
            failed += 1
            print(f"error: {error}\n{error.trace}", file=sys.stderr, flush=True)
            continue
        date = datetime.now(UTC).isoformat(timespec="seconds")
        entry = row.about() | answer | about | {"date": date, "load_before": round(load, 2)}
        entry["seconds"] = round(time.monotonic() - began, 1)
        path = Results(options.what, describe(device), options.small, {row.name: entry}).write(folder)
        print("    " + line_of(entry, judged=not options.small), flush=True)
    if failed < len(rows):
        print(f"results: {path}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
