"""Whole recipes on paper: one block stands for many, latents for pictures; what steps and sheets take."""

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.integration.test_experiments import composed
from tests.integration.test_experiments import without_files as random_networks
from tests.unit.train.peaks import measured
from train.budget.paper import Paper, Working
from train.budget.repeats import Call, Run, find_runs
from train.config import config_from_plain
from train.latents import LearnsFromLatents
from train.parallel.preparation import prepare
from train.parallel.world import World
from train.recipes import make_recipe
from train.rng import step_rng

CPU = torch.device("cpu")
DEEP = "model.stage_c.config={c_hidden: [64, 64], blocks: [[5, 6], [6, 5]], dropout: 0.0}"
DEEP_B = "model.stage_b.config={blocks: [[2, 6], [6, 2]], block_repeat: [[1, 2], [2, 1]], dropout: 0.0}"


def plain_of(name: str, *changes: str) -> dict[str, Any]:
    return random_networks(composed(f"tiny/{name}", *changes))


def whole(working: Working) -> Any:
    counts = {name: count for name, count in working.operations.items() if count}
    return working.alone, working.together, working.gradients, working.helping, counts


@pytest.mark.parametrize("recompute", [False, True, "selective"])
@pytest.mark.parametrize(
    ("name", "deep"), [("stage_c", DEEP), ("lora", DEEP), ("lcm", DEEP), ("stage_b", DEEP_B)]
)
def test_one_block_for_many_counts_as_all_of_them(name: str, deep: str, recompute: Any) -> None:
    paper = Paper(plain_of(name, deep, "run.precision=bf16"))
    assert len(paper.runs) >= 2 and any(run.times >= 3 for run in paper.runs)
    few = [paper.micro_step(2, recompute, lowered) for lowered in (False, True)]
    drawn = paper.sheet()
    paper.runs = []
    assert [whole(each) for each in few] == [whole(paper.micro_step(2, recompute, n)) for n in (False, True)]
    assert drawn == paper.sheet()


def test_runs_are_of_groups_that_join_and_do_the_same() -> None:
    def calls(kinds: str, apart: int = -1) -> list[list[Call]]:
        return [[Call(ord(kind), True, place != apart, (True, True))] for place, kind in enumerate(kinds)]

    assert find_runs(calls("xCTACTACTACTAy")) == [Run(1, 3, 4)]
    assert list(Run(1, 3, 4).counted) == [4, 5, 6] and list(Run(1, 3, 4).skipped) == [7, 8, 9]
    assert find_runs(calls("CTACTACTA")) == []
    assert find_runs(calls("CCCCCC", apart=3)) == []
    assert find_runs([[] for _ in range(6)]) == []


def real(name: str, recompute: Any, *changes: str) -> tuple[Any, dict[str, Any]]:
    """The same recipe with numbers, and a batch."""
    config = config_from_plain(
        {**plain_of(name, *changes), "parallel": {"activation_checkpointing": recompute, "mode": "ddp"}}
    )
    recipe = make_recipe(config)
    recipe.build(CPU)
    prepare(recipe.prepared(), config.parallel, World(0, 1, CPU))
    for network in recipe.networks().values():
        network.train()
    side, size = config.data.image_size_px, 4
    images = torch.randint(0, 256, (size, 3, side, side), dtype=torch.uint8)
    return recipe, {"images": images, "captions": ["a word"] * size, "keys": [""] * size}


LARGE = "data.image_size_px=128"


@pytest.mark.parametrize(
    ("name", "recompute", "changes"),
    [
        ("stage_c", False, (DEEP, LARGE)),
        ("stage_c", "selective", (DEEP, LARGE)),
        ("lora", True, (DEEP, LARGE)),
        ("stage_b", False, (DEEP_B, LARGE)),
        ("previewer", False, (LARGE,)),
    ],
)
def test_a_step_takes_what_was_counted(name: str, recompute: Any, changes: tuple[str, ...]) -> None:
    recipe, batch = real(name, recompute, *changes)

    def step() -> Tensor:
        loss, _ = recipe.loss("model", batch, step_rng(0, 0, 0, 4))
        loss.backward()
        return loss

    counted = Paper(plain_of(name, *changes)).micro_step(4, recompute)
    found = measured(step)
    print(f"{name} {recompute}: counted {counted.together / 1e6:.2f}, measured {found / 1e6:.2f} MB")
    assert counted.together == pytest.approx(found, rel=0.1)


def test_a_sheet_takes_what_was_counted() -> None:
    """Stage B's, for which the CPU's convolutions keep no copies in layouts of their own."""
    name, changes = "stage_b", (DEEP_B, LARGE)
    recipe, batch = real(name, False, *changes)
    for network in recipe.networks().values():
        network.eval()
    counted = Paper(plain_of(name, *changes, "run.num_samples=4")).sheet()
    with torch.no_grad():
        found = measured(lambda: recipe.sample(batch, step_rng(0, 0, 0, 4)))
    print(f"{name} sheet: counted {counted.most / 1e6:.2f}, measured {found / 1e6:.2f} MB")
    assert counted.most == pytest.approx(found, rel=0.1)


def test_latents_are_learnt_from_without_what_made_them() -> None:
    plain = plain_of("stage_c")
    pictures, latents = Paper(plain), Paper(plain, ("semantic_compressor", "image_encoder", "text_encoder"))
    assert set(pictures.frozen()) - set(latents.frozen()) == {
        "semantic_compressor",
        "text_encoder",
        "image_encoder",
    }
    assert isinstance(latents.recipe, LearnsFromLatents) and "images" not in latents.batch(2)
    own, other = pictures.micro_step(2, False), latents.micro_step(2, False)
    assert own.operations["forward"] == other.operations["forward"] and not other.operations.get("frozen")
    assert other.helping < own.helping and own.gradients == other.gradients
    assert latents.sheet().most <= pictures.sheet().most
