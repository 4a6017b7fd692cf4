"""One rank of the distributed tests: runs every config of a file."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from modules.processes import place
from tests.integration.conftest import ColourRecipe
from train.config import Config, config_from_plain
from train.loop import DivergedError, Summary, run
from train.parallel.ranks import gather
from train.parallel.shards import full, reshard
from train.recipe import Recipe
from train.recipes import make_recipe


class UnluckyRecipe(ColourRecipe):
    """Rank 1 alone meets a loss that is no number in step 1, and a gradient that is none in step 3."""

    def loss(self, player: str, batch: Any, rng: Any) -> tuple[Tensor, dict[str, float | Tensor]]:
        loss, metrics = super().loss(player, batch, rng)
        if place().rank == 1 and self.step == 1:
            loss = loss * float("nan")
        if place().rank == 1 and self.step == 3:
            loss = loss + 0 * (loss - loss.detach()).sqrt()  # 0 with an infinite slope
        return loss, metrics


def run_all(configs: Path) -> None:
    for settings in json.loads(configs.read_text()):
        unlucky = settings["recipe"]["name"] == "unlucky"
        config = config_from_plain(settings)
        recipe: Recipe = UnluckyRecipe() if unlucky else make_recipe(config)
        check_all_ranks_say(recipe, run(config, recipe))
        if unlucky:
            check_all_stop(config)


def check_all_stop(config: Config) -> None:
    """Where one rank's loss is to end the run, every rank ends in the same step."""
    stopped = replace(config.run, dir=f"{config.run.dir}_stopped", max_nonfinite=1)
    with pytest.raises(DivergedError, match="^step 2: "):
        run(replace(config, run=stopped), UnluckyRecipe())


def check_all_ranks_say(recipe: Recipe, summary: Summary) -> None:
    """Every rank ended alike, with the same recipe state and the same weights, to the last bit."""
    state = tree_map_only(Tensor, Tensor.tolist, recipe.state_dict())
    weights = {}
    for network in recipe.prepared():
        reshard(network)
    with torch.no_grad():
        for name, network in recipe.networks().items():
            for key, parameter in network.named_parameters():
                weights[f"{name}.{key}"] = full(parameter).double().sum().item()
    said = gather(repr((replace(summary, seconds=0), state, weights)))
    assert said == said[:1] * len(said), said


def main(arguments: list[str]) -> int:
    run_all(Path(arguments[0]))
    return 0
