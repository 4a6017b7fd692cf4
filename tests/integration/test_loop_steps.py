"""What a step does: accumulates, clips, skips what is not finite, trains players in turn."""

import csv
import json
from pathlib import Path

import pytest
import torch
from torch import nn

from modules.weights import read_tensors
from tests.integration.saved import saved_tensors
from train.config import config_from_plain
from train.loop import DivergedError, run


def column(folder: Path, name: str) -> list[float]:
    with (folder / "metrics.csv").open() as file:
        return [float(row[name]) for row in csv.DictReader(file) if row[name]]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return read_tensors(folder / "weights" / "colour_net.safetensors")


def test_accumulated_micro_batches_equal_the_large_batch(plain_config, colour_recipe, tmp_path) -> None:
    for name, num_accum, batch_size in (("large", 1, 8), ("accumulated", 4, 2)):
        own = {"dir": str(tmp_path / name), "num_accum": num_accum}
        config = config_from_plain(plain_config(run=own, data={"batch_size": batch_size, "shuffle": 0}))
        run(config, colour_recipe(dropout=0.0))
    large, accumulated = (column(tmp_path / name, "loss") for name in ("large", "accumulated"))
    assert large == pytest.approx(accumulated, rel=1e-5)
    for key, value in weights(tmp_path / "large").items():
        torch.testing.assert_close(value, weights(tmp_path / "accumulated")[key], atol=1e-6, rtol=1e-4)


def test_gradients_are_clipped_to_the_norm_asked_for(plain_config, colour_recipe, tmp_path) -> None:
    """Clipped to almost nothing, AdamW's second moment is almost nothing too; the reported norm is not."""
    run(config_from_plain(plain_config(run={"clip_norm": 1e-6})), colour_recipe())
    state = saved_tensors(tmp_path / "run" / "checkpoints" / "step_00000006", "optimizer/model/")
    moments = [value for name, value in state.items() if name.endswith("exp_avg_sq")]
    assert len(moments) == 6
    assert sum(float(moment.sum()) for moment in moments) <= 6 * 0.001 * 1e-12 * 1.01
    assert min(column(tmp_path / "run", "gradient_norm")) > 1e-4


def test_a_step_that_is_not_finite_is_skipped_and_counted(plain_config, colour_recipe, tmp_path) -> None:
    config = config_from_plain(plain_config(run={"save_every": 1, "keep_every": 1}))
    summary = run(config, colour_recipe(bad_steps=range(2, 4)))
    assert summary.skipped_steps == 2 and summary.step == 6
    assert column(tmp_path / "run", "skipped_steps") == [0, 0, 1, 2, 2, 2]
    folders = [tmp_path / "run" / "checkpoints" / f"step_0000000{step}" for step in (2, 3, 4, 5)]
    before, bad, worse, after = (saved_tensors(folder, "weights/colour_net/") for folder in folders)
    assert all(torch.equal(before[key], bad[key]) and torch.equal(bad[key], worse[key]) for key in before)
    assert not all(torch.equal(worse[key], after[key]) for key in before)


def test_too_many_bad_steps_in_a_row_end_the_run(plain_config, colour_recipe, tmp_path) -> None:
    config = config_from_plain(plain_config(run={"max_nonfinite": 3, "num_steps": 20, "save_every": 20}))
    with pytest.raises(DivergedError, match=r"step 5: .* 3 steps in a row \(loss nan.*optim\.lr") as told:
        run(config, colour_recipe(bad_steps=range(2, 20)))
    assert "checkpoint" not in str(told.value), "there is none yet"
    start = json.loads((tmp_path / "run" / "run.json").read_text())["starts"][0]
    assert start["error"].startswith("DivergedError: step 5")
    config = config_from_plain(plain_config(run={"max_nonfinite": 3, "num_steps": 20, "save_every": 1}))
    with pytest.raises(DivergedError, match=r"the newest checkpoint in .*run is from before"):
        run(config, colour_recipe(bad_steps=range(2, 20)))


def test_the_same_batch_comes_again_and_again_when_asked(plain_config, colour_recipe) -> None:
    seen = []

    class Watching(colour_recipe):
        def loss(self, player, batch, rng):
            seen.append(batch["keys"])
            return super().loss(player, batch, rng)

    run(config_from_plain(plain_config(run={"repeat_batch": True})), Watching())
    assert len(seen) == 6 and all(keys == seen[0] for keys in seen)


def test_the_profiler_leaves_a_trace_and_a_table(plain_config, colour_recipe, tmp_path) -> None:
    run(config_from_plain(plain_config(run={"profile_steps": 2})), colour_recipe())
    assert "aten::convolution" in (tmp_path / "run" / "profile" / "operators.txt").read_text()
    assert (tmp_path / "run" / "profile" / "trace.json").stat().st_size > 1000


@pytest.mark.parametrize("changes", [{"precision": "bf16"}, {"channels_last": True}, {"num_threads": 1}])
def test_the_switches_change_how_and_not_what_is_learnt(
    plain_config, colour_recipe, tmp_path, changes
) -> None:
    threads = torch.get_num_threads()
    run(config_from_plain(plain_config(run={"dir": str(tmp_path / "plain")})), colour_recipe(dropout=0.0))
    run(config_from_plain(plain_config(run=changes)), colour_recipe(dropout=0.0))
    torch.set_num_threads(threads)
    expected = column(tmp_path / "plain", "loss")
    assert column(tmp_path / "run", "loss") == pytest.approx(expected, rel=0.05)
    assert all(value.dtype == torch.float32 for value in weights(tmp_path / "run").values())


def test_recomputed_blocks_give_the_same_weights(plain_config, colour_recipe, tmp_path) -> None:
    run(config_from_plain(plain_config(run={"dir": str(tmp_path / "plain")})), colour_recipe())
    run(config_from_plain(plain_config(parallel={"activation_checkpointing": True})), colour_recipe())
    plain, recomputed = weights(tmp_path / "plain"), weights(tmp_path / "run")
    assert all(torch.equal(plain[key], recomputed[key]) for key in plain)


def test_eight_bit_adam_learns_and_resumes(plain_config, colour_recipe, tmp_path) -> None:
    pytest.importorskip("bitsandbytes")
    optim = {"name": "adamw8bit"}
    run(config_from_plain(plain_config(run={"num_steps": 3}, optim=optim)), colour_recipe())
    run(config_from_plain(plain_config(run={"num_steps": 30}, optim=optim)), colour_recipe())
    losses = column(tmp_path / "run", "loss")
    assert len(losses) == 30 and sum(losses[-5:]) < sum(losses[:5])


def test_players_learn_in_turn_each_with_its_own_optimizer(plain_config, colour_recipe, tmp_path) -> None:
    class Two(colour_recipe):
        """The second player learns from the first one's network and must not move it."""

        players = ("model", "second")

        def build(self, device):
            super().build(device)
            self.other = type(self.net)()

        def trainable(self):
            return {"model": self.net, "second": self.other}

        def networks(self):
            return {"colour_net": self.net, "other_net": self.other}

        def loss(self, player, batch, rng):
            assert all(p.requires_grad == (player == "model") for p in self.net.parameters())
            assert all(p.requires_grad == (player == "second") for p in self.other.parameters())
            if player == "model":
                return super().loss(player, batch, rng)
            if self.step < 2:
                return torch.zeros(()), {}
            images = batch["images"].float() / 255
            return (self.net(images) - self.other(images)).square().mean(), {}

    settings = plain_config(
        optim={"players": {"second": {"lr": 0.5}}}, run={"save_every": 1, "keep_every": 1}
    )
    recipe = Two()
    run(config_from_plain(settings), recipe)
    assert column(tmp_path / "run", "second/learning_rate") == [0.5] * 6
    assert column(tmp_path / "run", "model/learning_rate") == [0.01] * 6
    saved = [
        saved_tensors(tmp_path / "run" / "checkpoints" / f"step_0000000{step}", "weights/other_net/")
        for step in (1, 2, 3)
    ]
    first, second, third = (state["last.weight"] for state in saved)
    assert torch.equal(first, second), "its loss does not depend on it yet"
    assert not torch.equal(second, third)
    assert isinstance(recipe.other, nn.Module) and all(p.requires_grad for p in recipe.other.parameters())


def test_a_run_that_ends_with_its_data_says_so(plain_config, colour_recipe, capfd) -> None:
    for _ in range(2):  # the second time nothing is left
        summary = run(
            config_from_plain(plain_config(run={"num_steps": 99}, data={"epochs": 1})), colour_recipe()
        )
        told = "".join(capfd.readouterr())
        assert f"ended after step {summary.step} of 99: all of data.epochs=1 is read" in told
    assert not summary.interrupted and 0 < summary.step < 99
