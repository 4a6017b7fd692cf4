"""One rank of the test of counts: trains as SETTINGS.json says, notes what it had in SETTINGS.json.RANK."""

import json
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

from modules.processes import place
from tests.integration.conftest import ColourRecipe
from train.config import config_from_plain
from train.loop import DivergedError, run


class Counting(ColourRecipe):
    """Counts the samples of each source."""

    def __init__(self, bad_steps: range = range(0)) -> None:
        super().__init__(bad_steps=bad_steps)
        self.taken: Counter[str] = Counter()

    def loss(self, player: str, batch: Any, rng: Any) -> Any:
        self.taken.update(batch["sources"])
        return super().loss(player, batch, rng)


def train(settings: dict[str, Any], bad_steps: range = range(0)) -> Counter[str]:
    """One start of a run, to its end or until it diverges: the samples of each source that this rank had."""
    recipe = Counting(bad_steps)
    with suppress(DivergedError):
        run(config_from_plain(settings), recipe)
    return recipe.taken


def main(arguments: list[str]) -> int:
    path = Path(arguments[0])
    plain = json.loads(path.read_text())
    taken = train(plain["settings"], range(*plain["bad_steps"]))
    Path(f"{path}.{place().rank}").write_text(json.dumps(taken))
    return 0
