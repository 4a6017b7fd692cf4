"""One rank of the distributed tests: torchrun train_worker.py CONFIGS.json runs every config of the file."""

import json
import sys
from pathlib import Path

from train.config import config_from_plain
from train.loop import run
from train.parallel.world import leave

if __name__ == "__main__":
    for settings in json.loads(Path(sys.argv[1]).read_text()):
        run(config_from_plain(settings))
    leave(0)
