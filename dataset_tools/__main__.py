"""`python -m dataset_tools COMMAND`: each command is a file with `add_arguments` and `main`.

A command's help is its file's docstring.
"""

import io
import os
import sys
from collections.abc import Sequence

from dataset_tools import inspect, pack, precompute, shapes
from dataset_tools.cache import CacheError
from modules.command_lines import Parser
from modules.schema import one_line

COMMANDS = {"pack": pack, "inspect": inspect, "precompute": precompute, "shapes": shapes}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit status, 2 after an error that the user can put right."""
    parser = Parser(prog="python -m dataset_tools", description="Make, check and draw shards of pictures.")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, module in COMMANDS.items():
        command = commands.add_parser(
            name,
            help=(module.__doc__ or "").split("\n")[0].partition(": ")[2],
            description=module.__doc__,
        )
        module.add_arguments(command)
        command.set_defaults(run=module.main)
    args, rest = parser.parse_known_args(argv)
    settings = [text for text in rest if hasattr(args, "settings") and not text.startswith("-")]
    if settings != rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    vars(args).setdefault("settings", []).extend(settings)  # argparse takes none behind an option
    if isinstance(sys.stdout, io.TextIOWrapper):  # names may hold letters that a terminal has not
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        status: int = args.run(args)
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # of `| head`, which has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is flushed at the end
        return 1
    except (ValueError, OSError, CacheError) as error:
        print("error:", one_line(error), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
