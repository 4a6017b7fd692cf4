"""One rank of a training that loses rank 1 once: torchrun restart_worker.py SETTINGS.json WHOLE.json.

First it trains what WHOLE.json says without interruption.
"""

import json
import os
import signal
import sys
from pathlib import Path

from train.config import config_from_plain
from train.loop import run
from train.parallel import heartbeat
from train.parallel.world import conduct
from train.recipes import make_recipe

KILLED_AT = 5  # steps that are done by then
heartbeat.GRACE_S = 1.0


def main() -> int:
    for path in sys.argv[2:0:-1]:
        config = config_from_plain(json.loads(Path(path).read_text()))
        recipe = make_recipe(config)
        after_step = recipe.after_step

        def after(step: int, path: str = path, after_step=after_step) -> None:
            is_first_try = os.environ["TORCHELASTIC_RESTART_COUNT"] == "0"
            if path == sys.argv[1] and step == KILLED_AT and os.environ["RANK"] == "1" and is_first_try:
                os.kill(os.getpid(), signal.SIGKILL)
            after_step(step)

        recipe.after_step = after  # type: ignore[method-assign]
        run(config, recipe)
    return 0


if __name__ == "__main__":
    conduct(main)
