"""bf16 weights and updates within the backward pass: they learn, resume exactly, take what is said."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.distributed._tools.mem_tracker import MemTracker

from modules.schema import ConfigError
from modules.weights import read_tensors
from tests.integration.conftest import ColourNet, ColourRecipe
from tests.integration.launching import run_ranks
from tests.integration.recipe_cases import RECIPES
from tests.integration.saved import saved_tensors
from train.checkpoints.folders import CheckpointError
from train.config import OptimConfig, config_from_plain
from train.loop import run
from train.optim.rounding import lower
from train.parallel.world import World
from train.player import Player
from train.session import check_players

CPU = torch.device("cpu")
BF16 = {"weights": "bf16_stochastic"}
FUSED = {"fused_backward": True}
KINDS: dict[str, dict[str, Any]] = {
    "bf16": BF16,
    "fused": FUSED,
    "all": {**BF16, **FUSED, "name": "paged_adamw8bit"},
}
pytestmark = pytest.mark.filterwarnings("ignore:Paged optimizers are not supported on CPU")


class WideRecipe(ColourRecipe):
    """With weights that are large enough for states of 8 bits (4096 numbers)."""

    def build(self, device: torch.device) -> None:
        self.net = ColourNet(width=64, dropout=self.dropout).to(device)


def column(folder: Path, name: str) -> list[float]:
    with (folder / "metrics.csv").open() as file:
        return [float(row[name]) for row in csv.DictReader(file) if row[name]]


def settings(plain_config: Any, optim: dict[str, Any], **own: Any) -> dict[str, Any]:
    changes = {"clip_norm": None, "precision": "bf16" if "weights" in optim else "fp32", **own}
    return plain_config(run=changes, optim={"lr": 1e-3, **optim})


@pytest.mark.parametrize("names", [("adamw", "adamw8bit"), ("adamw8bit", "adamw")])
def test_states_of_another_kind_are_refused_at_the_start(
    names: tuple[str, str], plain_config: Any, colour_recipe: type[ColourRecipe]
) -> None:
    pytest.importorskip("bitsandbytes")
    before, now = (config_from_plain(plain_config(optim={"name": name})) for name in names)
    run(before, colour_recipe())
    with pytest.raises(CheckpointError, match=rf"expected .*, found .* optim\.name: {names[0]} → {names[1]}"):
        run(now, colour_recipe())


@pytest.mark.parametrize("kind", KINDS)
def test_a_resumed_run_equals_the_uninterrupted_one(kind: str, plain_config: Any, tmp_path: Path) -> None:
    if kind == "all":
        pytest.importorskip("bitsandbytes")
    for folder, stops in (("whole", (6,)), ("parts", (3, 6))):
        for num_steps in stops:
            own = {"dir": str(tmp_path / folder), "num_steps": num_steps, "sample_every": 2}
            run(config_from_plain(settings(plain_config, KINDS[kind], **own)), WideRecipe())
    whole, parts = (
        saved_tensors(tmp_path / folder / "checkpoints" / "step_00000006") for folder in ("whole", "parts")
    )
    assert whole.keys() == parts.keys()
    for name, value in whole.items():
        assert torch.equal(value, parts[name]) and value.dtype == parts[name].dtype, name
    if kind != "fused":
        assert whole["weights/colour_net/second.0.weight"].dtype == torch.bfloat16
        assert whole["weights/colour_net/second.0.bias"].dtype == torch.float32
        assert whole["ema/colour_net/second.0.weight"].dtype == torch.float32
    assert column(tmp_path / "whole", "loss") == column(tmp_path / "parts", "loss")


def test_updates_within_the_backward_pass_are_those_after_it(plain_config: Any, tmp_path: Path) -> None:
    for folder, optim in (("after", {}), ("within", FUSED)):
        run(config_from_plain(settings(plain_config, optim, dir=str(tmp_path / folder))), WideRecipe())
    after, within = (
        saved_tensors(tmp_path / folder / "checkpoints" / "step_00000006") for folder in ("after", "within")
    )
    assert after.keys() == within.keys() and all(torch.equal(after[name], within[name]) for name in after)
    norms = [column(tmp_path / folder, "gradient_norm") for folder in ("after", "within")]
    assert norms[0] == pytest.approx(norms[1], rel=1e-5)


def test_bf16_weights_learn_as_fp32_ones(plain_config: Any, tmp_path: Path) -> None:
    found = []
    for folder, optim in (("fp32", {}), ("bf16", BF16)):
        own = {"dir": str(tmp_path / folder), "num_steps": 40, "precision": "bf16", "repeat_batch": True}
        run(config_from_plain(settings(plain_config, optim, **own)), WideRecipe(dropout=0.0))
        found.append(column(tmp_path / folder, "error"))
    assert found[0][-1] < 0.5 * found[0][0]
    assert found[1][-1] == pytest.approx(found[0][-1], rel=0.15)


def test_a_checkpoint_of_fp32_weights_goes_on_in_bf16(plain_config: Any, tmp_path: Path) -> None:
    for num_steps, optim in ((3, {}), (6, BF16)):
        own = {"num_steps": num_steps, "precision": "bf16", "keep_every": 3}
        run(config_from_plain(settings(plain_config, optim, **own)), WideRecipe())
    exported = read_tensors(tmp_path / "run" / "weights" / "colour_net.safetensors")
    assert exported["second.0.weight"].dtype == torch.bfloat16
    before = saved_tensors(tmp_path / "run" / "checkpoints" / "step_00000003")[
        "weights/colour_net/second.0.weight"
    ]
    torch.testing.assert_close(exported["second.0.weight"].float(), before, atol=6e-3, rtol=1e-2)


def test_a_loss_that_is_not_finite_leaves_weights_updated_in_the_backward_pass_alone(
    plain_config: Any, tmp_path: Path
) -> None:
    own = {"save_every": 1, "keep_every": 1}
    summary = run(config_from_plain(settings(plain_config, FUSED, **own)), WideRecipe(bad_steps=range(2, 3)))
    assert summary.skipped_steps == 1
    before, bad, after = (
        saved_tensors(tmp_path / "run" / "checkpoints" / f"step_0000000{step}", "weights/")
        for step in (2, 3, 4)
    )
    assert all(torch.equal(before[name], bad[name]) for name in before)
    assert not all(torch.equal(bad[name], after[name]) for name in before)


def test_a_gradient_that_is_not_finite_is_counted_and_moves_nothing_by_itself() -> None:
    layers = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    layers[1].weight.register_hook(lambda gradient: gradient * torch.nan)  # type: ignore[union-attr, operator]
    before = layers[1].weight.detach().clone()  # type: ignore[operator]
    player = Player("model", layers, OptimConfig(weight_decay=0.0, **FUSED), World(0, 1, CPU), seed=0)
    done = player.update([layers(torch.ones(1, 2)).sum()], 1, 0.1, None, step=0)
    assert not done.is_finite and torch.equal(layers[1].weight, before)
    assert all(parameter.isfinite().all() for parameter in layers.parameters())


@pytest.mark.parametrize("optim", [{}, FUSED])
def test_a_step_that_is_not_finite_leaves_the_statistics_of_batchnorm_alone(optim: dict[str, Any]) -> None:
    layers = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))
    player = Player("model", layers, OptimConfig(**optim), World(0, 1, CPU), seed=0)
    norm = layers[1]
    for number, moves in ((torch.nan, False), (3.0, True), (torch.nan, False)):
        before = norm.running_mean.clone(), norm.running_var.clone()  # type: ignore[union-attr, operator]
        batch = number * torch.rand(2, 1, 4, 4, generator=torch.Generator().manual_seed(0))
        done = player.update((layers(batch).square().sum() for _ in range(1)), 1, 0.1, None, step=0)
        assert done.is_finite is moves
        for old, new in zip(before, (norm.running_mean, norm.running_var), strict=True):
            assert torch.equal(old, new) is not moves and new.isfinite().all()


def peak_bytes(optim: dict[str, Any]) -> int:
    """The most that one step of a deep network takes, weights and optimizer included; the second step's."""
    torch.manual_seed(0)
    network = nn.Sequential(*(nn.Linear(256, 256) for _ in range(16)))
    if "weights" in optim:
        lower(network)
    player = Player("model", network, OptimConfig(**optim), World(0, 1, CPU), seed=0)
    tracker = MemTracker()

    def step(index: int) -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled="weights" in optim):
            loss = network(torch.ones(2, 256)).float().square().mean()
        player.update([loss], 1, 1e-3, None, index)

    step(0)
    tracker.track_external(network, player.optimizer)
    with tracker:
        step(1)
    return int(tracker.get_tracker_snapshot("peak")[CPU]["Total"])


@pytest.mark.filterwarnings("ignore:Expected a tensor or a traceable")
def test_memory_falls_by_what_is_said() -> None:
    weights, largest = 16 * 256 * 256, 256 * 256
    plain = peak_bytes({})
    assert plain > 16 * weights  # weights, gradients, two moments, 4 bytes each
    assert peak_bytes(FUSED) < plain - 4 * weights + 4 * 2 * largest
    assert peak_bytes(BF16) < plain - 4 * weights + 4 * 8 * largest
    assert peak_bytes({**BF16, **FUSED}) < plain - 6 * weights + 4 * 8 * largest


def test_two_processes_round_alike(plain_config: Any, tmp_path: Path) -> None:
    """The worker checks that both end with the same weights, to the last bit."""
    runs = []
    for folder, mode, batch_size in (("one", "single", 4), ("two", "ddp", 2)):
        own = {"dir": str(tmp_path / folder), "precision": "bf16", "num_steps": 4}
        plain = plain_config(
            run=own, optim={"lr": 1e-3, **BF16}, parallel={"mode": mode}, data={"batch_size": batch_size}
        )
        runs.append({**plain, **RECIPES["stage_c"]})
    run(config_from_plain(runs[0]))
    (tmp_path / "two.json").write_text(json.dumps(runs[1:]))
    run_ranks("train_worker", tmp_path / "two.json")
    losses = [column(tmp_path / folder, "loss") for folder in ("one", "two")]
    assert losses[0] == pytest.approx(losses[1], rel=5e-3)
    norms = [column(tmp_path / folder, "gradient_norm") for folder in ("one", "two")]
    assert norms[0] == pytest.approx(norms[1], rel=2e-2)


@pytest.mark.parametrize("recipe", ["stage_a", "stage_b", "stage_c"])
def test_all_players_of_a_recipe_are_updated_in_backward_passes_that_recompute(
    recipe: str, plain_config: Any, tmp_path: Path
) -> None:
    for folder, optim in (("after", {}), ("within", FUSED)):
        own = {"dir": str(tmp_path / folder), "clip_norm": None, "num_steps": 3}
        parallel = {"activation_checkpointing": folder == "within"}
        plain = plain_config(run=own, optim={"lr": 1e-3, **optim}, parallel=parallel)
        run(config_from_plain({**plain, **RECIPES[recipe]}))
    after, within = (
        saved_tensors(tmp_path / folder / "checkpoints" / "step_00000003") for folder in ("after", "within")
    )
    assert all(torch.equal(within[name], value) for name, value in after.items())


@pytest.mark.parametrize("recipe", ["stage_a", "stage_b", "stage_c", "previewer"])
def test_blocks_that_keep_their_products_learn_the_same(
    recipe: str, plain_config: Any, tmp_path: Path
) -> None:
    for folder, mode in (("kept", False), ("recomputed", "selective")):
        own = {"dir": str(tmp_path / folder), "num_steps": 3}
        plain = plain_config(run=own, parallel={"activation_checkpointing": mode})
        run(config_from_plain({**plain, **RECIPES[recipe]}))
    kept, recomputed = (
        saved_tensors(tmp_path / folder / "checkpoints" / "step_00000003")
        for folder in ("kept", "recomputed")
    )
    assert all(torch.equal(recomputed[name], value) for name, value in kept.items())


def test_updates_within_the_backward_pass_are_for_one_process(plain_config: Any) -> None:
    config = config_from_plain(settings(plain_config, FUSED))
    with pytest.raises(ConfigError, match=r"optim\.fused_backward: found true, but 2 processes"):
        check_players(config, WideRecipe(), World(0, 2, CPU))
