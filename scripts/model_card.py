"""`python -m scripts.model_card RUN`: the model card of a run (README.md in its folder), made anew.

A training writes it when it ends; this does so at any time, as after an evaluation.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from modules.command_lines import Parser
from modules.schema import one_line
from train.reports.card import write_card


def main(arguments: Sequence[str] | None = None) -> int:
    """Write it; returns the exit status. What is wrong is one line and status 2."""
    parser = Parser(prog="python -m scripts.model_card", description=__doc__)
    parser.add_argument("run", type=Path, metavar="RUN", help="a run's folder")
    parser.add_argument("--out", type=Path, metavar="FILE", help="another file (default: README.md in RUN)")
    options = parser.parse_args(arguments)
    try:
        print(write_card(options.run, options.out))
    except (ValueError, OSError) as error:
        print("error:", one_line(error), file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
