"""Score one adapter of the demo: `python -m scripts.adapter_scores lcm --run RUN --out FOLDER`."""

import json
import pkgutil
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import scripts.adapter_scores
from modules.command_lines import Parser
from modules.schema import one_line
from modules.whole_files import write_whole
from scripts.adapter_scores import figure_texts, is_met


def kinds() -> list[str]:
    """The names of the modules that score an adapter."""
    names = (module.name for module in pkgutil.iter_modules(scripts.adapter_scores.__path__))
    return sorted(name for name in names if not name.startswith("_"))


def main(arguments: Sequence[str] | None = None) -> int:
    """Score, write, print the figures; returns the exit status: also 0 where less was reached than asked."""
    parser = Parser(prog="python -m scripts.adapter_scores", description="Score one adapter.")
    parser.add_argument("kind", choices=kinds())
    parser.add_argument("--run", type=Path, required=True, help="the adapter's run, beside those of the demo")
    parser.add_argument("--out", type=Path, required=True, help="folder for scores.json and pictures")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args(arguments)
    try:
        options.out.mkdir(parents=True, exist_ok=True)
        found = import_module(f"scripts.adapter_scores.{options.kind}").score(
            options.run, options.out, options.device
        )
        write_whole(options.out / "scores.json", json.dumps(found, indent=2) + "\n")
    except (ValueError, OSError) as error:
        print("error:", one_line(error), file=sys.stderr)
        return 2
    for line in found["figures"]:
        print("  ".join(figure_texts(line)), "" if is_met(line) else "  NOT REACHED")
    return 0


if __name__ == "__main__":
    sys.exit(main())
