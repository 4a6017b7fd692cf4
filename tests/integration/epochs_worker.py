"""One rank of the test of exact epochs: trains as RUNS.json says, and notes what it saw in RUNS.json.RANK."""

import json
from pathlib import Path
from typing import Any

from modules.processes import place
from tests.integration.conftest import ColourRecipe
from train.config import config_from_plain
from train.loop import Summary, run


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


def main(arguments: list[str]) -> int:
    results = []
    for settings in json.loads(Path(arguments[0]).read_text()):
        summary, seen = train(settings)
        results.append({"step": summary.step, "interrupted": summary.interrupted, "seen": seen})
    Path(f"{arguments[0]}.{place().rank}").write_text(json.dumps(results))
    return 0
