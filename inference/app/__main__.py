"""`python -m inference.app run=outputs/demo`: the web page."""

import sys
from collections.abc import Sequence
from dataclasses import asdict

from inference.app.settings import AppSettings
from modules.key_values import settings_from
from modules.leaving import leave_at_once
from modules.schema import one_line

MISTAKE = 2  # exit status
USAGE = """\
python -m inference.app run=outputs/demo [KEY=VALUE ...]
python -m inference.app run=outputs/demo port=8000 most_side_px=128 output=null
python -m inference.app run=outputs/demo host=0.0.0.0        # for others on the network too: see docs/web.md

The settings, explained in docs/web.md, and their defaults:
"""


def main(arguments: Sequence[str]) -> int:
    """Serve the page until it is ended; returns the exit status. A mistake is one line and status 2."""
    if {"--help", "-h"} & set(arguments):
        print(USAGE + "\n".join(f"  {name}={shown(value)}" for name, value in asdict(AppSettings()).items()))
        return 0
    try:
        return run(settings_from(AppSettings, arguments, positional=["run"]))
    except (ValueError, OSError) as error:
        print("error:", one_line(error), file=sys.stderr)
        return MISTAKE


def shown(value: object) -> str:
    """A default as it would be typed."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {shown(each)}" for key, each in value.items()) + "}"
    return {None: "null", True: "true", False: "false"}.get(value, str(value))  # type: ignore[call-overload]


def run(settings: AppSettings) -> int:
    """Serve the page that the settings describe; returns the exit status."""
    from inference.app.opening import (
        open_page,
    )  # slow to load: a mistake in the settings need not wait for it

    return open_page(settings)


if __name__ == "__main__":
    leave_at_once(main(sys.argv[1:]))  # its worker may be drawing, or reading weights
