"""What every memory preset chooses for the released sizes, as the table of docs/memory.md.

python -m scripts.memory_table [finetune/stage_c_3_6b …]   # default: all of configs/experiment/finetune
"""

import sys
from collections.abc import Sequence

from modules.command_lines import Parser
from modules.schema import one_line
from scripts.estimating import ROOT, settings
from train.budget.memory import GB
from train.budget.presets import PRESETS_GB, Counted

FOLDER = ROOT / "configs" / "experiment"


def rows(experiment: str) -> list[str]:
    """One line per preset, equal ones together."""
    counted = Counted(settings([f"experiment={experiment}"]))
    found: list[tuple[list[int], str, str]] = []
    for gb in PRESETS_GB:
        choice = counted.choice(gb)
        if choice is None:
            least = counted.chooser.least().memory.peak / GB
            peak, words = "–", f"not enough: {least:.1f} GB are the least"
        else:
            peak, words = f"{choice.memory.peak / GB:.1f}", counted.chooser.words(choice.measures)
        if found and found[-1][1:] == (peak, words):
            found[-1][0].append(gb)
        else:
            found.append(([gb], peak, words))
    return [
        f"| `{experiment}` | {', '.join(f'{gb}gb' for gb in presets)} | {peak} | {words} |"
        for presets, peak, words in found
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit status."""
    parser = Parser(prog="python -m scripts.memory_table", description=__doc__)
    parser.add_argument("experiments", nargs="*")
    asked = parser.parse_args(argv).experiments
    names = asked or sorted(f"finetune/{path.stem}" for path in (FOLDER / "finetune").glob("*.yaml"))
    print("| experiment | preset | peak, GB | what is chosen |\n| --- | --- | --- | --- |")
    try:
        for name in names:
            print("\n".join(rows(name)), flush=True)
    except ValueError as error:
        print("error:", one_line(error), file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
