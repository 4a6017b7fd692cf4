"""`python -m train.monitor run=outputs/demo/stage_c`: watch a training, or several, in a browser."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from modules.key_values import settings_from
from modules.schema import bounded, one_line

USAGE = """\
python -m train.monitor run=outputs/demo/stage_c [KEY=VALUE ...]
python -m train.monitor run=outputs/lr           # all runs in a folder, to choose and compare

run          the folder of a run, or one with runs in it; it may be empty or missing yet
port         7861
host         127.0.0.1: this machine alone; 0.0.0.0: whoever reaches it, without a password
refresh_s    3.0: seconds between two looks at what the runs have written
open         true: open the page in the browser of this machine
root_path    the page's path behind a proxy
"""


@dataclass(frozen=True)
class Settings:
    """USAGE says what each is."""

    run: str
    port: int = bounded(7861, least=1, most=65535)
    host: str = "127.0.0.1"
    refresh_s: float = bounded(3.0, least=0.2, most=3600)
    open: bool = False
    root_path: str = ""


def main(arguments: Sequence[str]) -> int:
    """Serve the page until it is interrupted; a mistake is one line and status 2."""
    if {"--help", "-h"} & set(arguments):
        print(USAGE, end="")
        return 0
    try:
        settings = settings_from(Settings, arguments, positional=("run",))
        from train.monitor.reader import Reader

        reader = Reader(Path(settings.run))
    except (ValueError, OSError) as error:
        print("error:", one_line(error), file=sys.stderr)
        return 2
    from modules.web import serve  # only now: a mistake need not wait for gradio
    from train.monitor.page import asset, build

    return serve(
        partial(build, reader, settings.refresh_s),
        host=settings.host,
        port=settings.port,
        root_path=settings.root_path,
        css=asset("monitor.css"),
        open_browser=settings.open,
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
