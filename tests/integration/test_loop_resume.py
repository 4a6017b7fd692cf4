"""A run that was stopped and started again equals one that was not, bit for bit; damage is found."""

import csv
import json
import logging
import os
import signal
from pathlib import Path

import pytest
import torch

from modules.schema import ConfigError
from modules.weights import read_header
from tests.integration.recipe_cases import RECIPES
from tests.integration.saved import saved_tensors, saved_texts
from train.checkpoints import saver
from train.checkpoints.folders import CheckpointError, Checkpoints
from train.config import Config, config_from_plain
from train.loop import run


def losses(folder: Path) -> list[str]:
    with (folder / "metrics.csv").open() as file:
        return [row["loss"] for row in csv.DictReader(file)]


def assert_same_checkpoint(one: Path, other: Path) -> None:
    torch.testing.assert_close(saved_tensors(one), saved_tensors(other), rtol=0, atol=0)
    texts, others = saved_texts(one), saved_texts(other)
    for text in (texts, others):
        assert text["state.json"]["counters"].pop("run_id")
    assert texts == others


@pytest.mark.parametrize("changes", [{}, {"optim": {"schedule": "cosine", "warmup_steps": 2}}])
@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_resumed_run_equals_the_uninterrupted_one(
    plain_config, colour_recipe, tmp_path, changes, num_workers
) -> None:
    changes = {**changes, "data": {"num_workers": num_workers}}

    def settings(folder: str, num_steps: int) -> dict:
        ema = {"start": 2, "interval": 2, "decay": 0.9}
        own = {"dir": str(tmp_path / folder), "num_steps": num_steps, "num_accum": 2, "ema": ema}
        return plain_config(run=own, **changes)

    run(config_from_plain(settings("whole", 7)), colour_recipe())
    parts = settings("parts", 7)
    stopped = config_from_plain(parts)
    interrupt_after(3, stopped, colour_recipe)
    summary = run(config_from_plain(parts), colour_recipe())
    assert summary.step == 7
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")
    name = "checkpoints/step_00000007"
    assert_same_checkpoint(tmp_path / "parts" / name, tmp_path / "whole" / name)


def test_a_batch_learnt_by_heart_stays_the_same_after_a_stop(plain_config, colour_recipe) -> None:
    seen = []

    class Watching(colour_recipe):
        def loss(self, player, batch, rng):
            seen.append(batch["keys"])
            return super().loss(player, batch, rng)

    for num_steps in (2, 4):
        own = {"repeat_batch": True, "num_steps": num_steps}
        run(config_from_plain(plain_config(run=own, data={"num_workers": 1})), Watching())
    assert len(seen) == 4 and all(keys == seen[0] for keys in seen)


def interrupt_after(step: int, config, colour_recipe) -> None:
    recipe = colour_recipe()
    after_step = recipe.after_step

    def then_stop(done: int) -> None:
        after_step(done)
        if done + 1 == step:
            os.kill(os.getpid(), signal.SIGTERM)

    recipe.after_step = then_stop
    summary = run(config, recipe)
    assert summary.interrupted and summary.step == step


def test_sigterm_saves_at_the_end_of_the_step_and_returns(plain_config, colour_recipe, tmp_path) -> None:
    config = config_from_plain(plain_config(run={"save_every": 100, "num_steps": 100}))
    before = signal.getsignal(signal.SIGTERM)
    interrupt_after(2, config, colour_recipe)
    assert (tmp_path / "run" / "checkpoints" / "latest").read_text() == "step_00000002"
    assert signal.getsignal(signal.SIGTERM) == before
    assert json.loads((tmp_path / "run" / "run.json").read_text())["starts"][0]["interrupted"] is True


def test_a_complete_run_started_again_does_nothing(plain_config, colour_recipe, tmp_path) -> None:
    run(config_from_plain(plain_config()), colour_recipe())
    before = losses(tmp_path / "run")
    assert run(config_from_plain(plain_config()), colour_recipe()).step == 6
    assert losses(tmp_path / "run") == before


def test_rows_after_the_checkpoint_are_not_reported_twice(plain_config, colour_recipe, tmp_path) -> None:
    """A run that was killed at step 5 goes on from the checkpoint of step 3."""
    settings = plain_config(run={"num_steps": 5, "save_every": 3, "keep_every": 3})
    run(config_from_plain(settings), colour_recipe())
    whole = losses(tmp_path / "run")
    (tmp_path / "run" / "checkpoints" / "latest").write_text("step_00000003")
    run(config_from_plain(settings), colour_recipe())
    assert losses(tmp_path / "run") == whole


def test_settings_that_changed_since_the_last_start_are_named(plain_config, colour_recipe, capsys) -> None:
    run(config_from_plain(plain_config()), colour_recipe())
    run(config_from_plain(plain_config(run={"num_steps": 8}, optim={"lr": 0.02})), colour_recipe())
    said = capsys.readouterr().err
    assert "going on after step 6" in said
    assert "optim.lr: 0.01 → 0.02" in said and "run.num_steps: 6 → 8" in said and "run.seed" not in said


DAMAGES = {
    "flipped bit": lambda path: path.write_bytes(flipped(path.read_bytes())),
    "cut off": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "missing": lambda path: path.unlink(),
}


def flipped(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ["rank_00000.safetensors", "rank_00000.json", "state.json", "manifest.json"])
def test_damage_is_found_and_the_checkpoint_before_it_used(
    plain_config, colour_recipe, tmp_path, caplog, name, damage
) -> None:
    config = config_from_plain(plain_config())
    run(config, colour_recipe())
    whole = losses(tmp_path / "run")
    last = tmp_path / "run" / "checkpoints" / "step_00000006"
    expected = saved_tensors(last)
    DAMAGES[damage](last / name)
    with caplog.at_level(logging.WARNING):
        assert run(config, colour_recipe()).step == 6
    (warning,) = [r.getMessage() for r in caplog.records if "checkpoint before it" in r.getMessage()]
    assert str(last) in warning and "\n" not in warning
    assert losses(tmp_path / "run") == whole
    torch.testing.assert_close(saved_tensors(last), expected, rtol=0, atol=0)


def test_a_damaged_newest_one_does_not_take_the_place_of_the_one_gone_on_from(
    plain_config, colour_recipe, tmp_path
) -> None:
    run(config_from_plain(plain_config()), colour_recipe())
    checkpoints = tmp_path / "run" / "checkpoints"
    (checkpoints / "step_00000006" / "state.json").unlink()
    recipe = colour_recipe()
    recipe.after_step = lambda step: 1 / 0  # before anything is saved again
    with pytest.raises(ZeroDivisionError):
        run(config_from_plain(plain_config(run={"keep_last": 1})), recipe)
    assert run(config_from_plain(plain_config(run={"keep_last": 1})), colour_recipe()).step == 6
    starts = json.loads((tmp_path / "run" / "run.json").read_text())["starts"]
    assert [start["from_step"] for start in starts] == [0, 3, 3]


def test_old_ones_that_cannot_be_removed_are_told_of(plain_config, colour_recipe, monkeypatch) -> None:
    def fails(checkpoints: Checkpoints) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Checkpoints, "prune", fails)
    with pytest.raises(CheckpointError, match=r"step_00000003: written, but older ones cannot be removed: "):
        run(config_from_plain(plain_config()), colour_recipe())


@pytest.mark.parametrize("kept", [1, 2])
def test_without_a_whole_checkpoint_the_run_ends(plain_config, colour_recipe, tmp_path, caplog, kept) -> None:
    config = config_from_plain(plain_config(run={"keep_last": kept}))
    run(config, colour_recipe())
    damaged = sorted((tmp_path / "run" / "checkpoints").glob("step_*"), reverse=True)
    for path in damaged:
        (path / "state.json").unlink()
    message = rf"none of its {kept} checkpoints is whole \(.*state\.json: missing"
    with caplog.at_level(logging.WARNING), pytest.raises(CheckpointError, match=message):
        run(config, colour_recipe())
    told = [r.getMessage() for r in caplog.records if "checkpoint before it" in r.getMessage()]
    assert len(told) == kept - 1, "the oldest has none before it"
    assert all(str(path) in line for path, line in zip(damaged, told, strict=False))


def test_what_a_killed_run_left_half_written_is_removed(plain_config, colour_recipe, tmp_path) -> None:
    config = config_from_plain(plain_config())
    run(config, colour_recipe())
    half = tmp_path / "run" / "checkpoints" / "step_00000009.unfinished"
    half.mkdir()
    (half / "rank_00000.safetensors").write_bytes(b"half")
    (half.parent / "latest.0a1b2c3d.tmp").write_text("step_0")
    run(config, colour_recipe())
    names = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert names == ["latest", "step_00000003", "step_00000006"]


def test_an_export_that_was_cut_short_is_made_up_for(plain_config, colour_recipe, tmp_path) -> None:
    run(config_from_plain(plain_config()), colour_recipe())
    path = tmp_path / "run" / "weights" / "colour_net.safetensors"
    expected, names = path.read_bytes(), sorted(path.parent.iterdir())
    path.unlink()
    path.with_name(f"{path.name}.0a1b2c3d.tmp").write_bytes(expected[:100])  # as a kill leaves it
    run(config_from_plain(plain_config()), colour_recipe())
    assert path.read_bytes() == expected and read_header(path)["step"] == 6
    assert sorted(path.parent.iterdir()) == names


def test_the_export_at_the_end_of_exact_epochs_is_made_up_for(plain_config, colour_recipe, tmp_path) -> None:
    """The last step is not run.num_steps there."""
    plain = plain_config(run={"num_steps": 100, "export": "end"}, data={"epochs": 1})
    assert run(config_from_plain(plain), colour_recipe()).step == 6
    path = tmp_path / "run" / "weights" / "colour_net.safetensors"
    expected = path.read_bytes()
    path.unlink()
    assert run(config_from_plain(plain), colour_recipe()).step == 6
    assert path.read_bytes() == expected and read_header(path)["step"] == 6


@pytest.mark.parametrize(("export", "steps"), [("always", [3, 6]), ("end", [6]), ("never", [])])
def test_networks_are_exported_as_often_as_asked(
    plain_config, colour_recipe, tmp_path, monkeypatch, export, steps
) -> None:
    exported = []
    original = saver.export
    monkeypatch.setattr(
        saver,
        "export",
        lambda path, networks, step, out: exported.append(step) or original(path, networks, step, out),
    )
    run(config_from_plain(plain_config(run={"export": export})), colour_recipe())
    assert exported == steps
    assert (tmp_path / "run" / "weights" / "colour_net_ema.safetensors").exists() == bool(steps)


def test_a_checkpoint_of_another_network_is_refused(plain_config, colour_recipe) -> None:
    run(config_from_plain(plain_config()), colour_recipe())
    recipe = colour_recipe()
    build = recipe.build

    def build_wider(device: torch.device) -> None:
        build(device)
        recipe.net.last = torch.nn.Linear(8, 4)

    recipe.build = build_wider
    shapes = r"colour_net/last\.weight: expected \[4, 8\], found \[3, 8\]; .*last\.bias: .*; and 1 more"
    with pytest.raises(CheckpointError, match=shapes):
        run(config_from_plain(plain_config(run={"num_steps": 8})), recipe)


def test_a_folder_of_another_recipe_is_left_as_it_is(plain_config, colour_recipe, tmp_path) -> None:
    run(config_from_plain(plain_config()), colour_recipe())
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    other = config_from_plain(plain_config(**RECIPES["stage_c"]))
    said = r"run\.dir: .*run of another recipe \(recipe\.name: colour → stage_c"
    with pytest.raises(ConfigError, match=said):
        run(other)
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == before


def test_a_checkpoint_of_other_settings_says_what_differs(plain_config, colour_recipe) -> None:
    without = plain_config(run={"ema": {"enabled": False}})
    run(config_from_plain(without), colour_recipe())
    found = r"ema/colour_net/first\.0\.weight: not in it; .*; and 3 more; changed since the last start:"
    with pytest.raises(CheckpointError, match=rf"{found} run\.ema\.enabled: False → True$"):
        run(config_from_plain(plain_config(run={"num_steps": 8, "ema": {"enabled": True}})), colour_recipe())


def test_a_checkpoint_of_another_diffusion_says_what_differs(plain_config) -> None:
    def settings(buckets: int) -> Config:
        weight = {"name": "AdaptiveLossWeight", "buckets": buckets}
        gdf = RECIPES["stage_c"]["gdf"] | {"loss_weight": weight}
        return config_from_plain(plain_config(**RECIPES["stage_c"] | {"gdf": gdf}, run={"num_steps": 1}))

    run(settings(20))
    with pytest.raises(CheckpointError, match=r"does not fit.*: gdf\.loss_weight\.buckets: 20 → 30$"):
        run(settings(30))


def test_only_kept_checkpoints_and_the_newest_stay(plain_config, colour_recipe, tmp_path) -> None:
    run(
        config_from_plain(plain_config(run={"save_every": 1, "keep_every": 3, "num_steps": 6})),
        colour_recipe(),
    )
    names = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert names == ["latest", "step_00000003", "step_00000005", "step_00000006"]
