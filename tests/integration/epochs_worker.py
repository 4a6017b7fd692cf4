"""One rank of the test of exact epochs: torchrun epochs_worker.py RUNS.json trains and notes what it saw."""

import json
import sys
from pathlib import Path
from typing import Any

from modules.processes import place
from tests.integration.conftest import ColourRecipe
from train.config import config_from_plain
from train.loop import Summary, run
from train.parallel.world import leave


class Watching(ColourRecipe):
    """Notes the keys and the share of every micro-batch. Its loss is the error itself, to be compared."""

    def __init__(self) -> None:
        super().__init__(dropout=0.0)
        self.seen: list[tuple[int, float, list[str]]] = []

    def loss(self, player: str, batch: Any, rng: Any) -> Any:
        self.seen.append((self.step, batch["share"], batch["keys"]))
        self.scale = 1.0
        return super().loss(player, batch, rng)


def train(settings: dict[str, Any]) -> tuple[Summary, list[tuple[int, float, list[str]]]]:
    """One run, and what this rank saw: (step, share, keys) of every micro-batch."""
    recipe = Watching()
    return run(config_from_plain(settings), recipe), recipe.seen


if __name__ == "__main__":
    results = []
    for settings in json.loads(Path(sys.argv[1]).read_text()):
        summary, seen = train(settings)
        results.append({"step": summary.step, "interrupted": summary.interrupted, "seen": seen})
    Path(f"{sys.argv[1]}.{place().rank}").write_text(json.dumps(results))
    leave(0)
