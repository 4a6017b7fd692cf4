"""A run that was stopped and started again equals one that was not, bit for bit; damage is found."""

import csv
import json
import os
import signal
from pathlib import Path

import pytest
import torch

from modules.weights import read_tensors
from train.checkpoint import CheckpointError
from train.config import config_from_plain
from train.loop import run


def losses(folder: Path) -> list[str]:
    with (folder / "metrics.csv").open() as file:
        return [row["loss"] for row in csv.DictReader(file)]


def assert_same_checkpoint(one: Path, other: Path) -> None:
    for path in sorted((one / "weights").iterdir()):
        first, second = read_tensors(path), read_tensors(other / "weights" / path.name)
        assert first.keys() == second.keys()
        assert all(torch.equal(first[key], second[key]) for key in first), path.name
    states = [torch.load(folder / "state.pt", weights_only=True) for folder in (one, other)]
    for state in states:
        assert state["counters"].pop("run_id")  # every run has its own
    assert_same(*states)


def assert_same(one: object, other: object) -> None:
    if isinstance(one, dict):
        assert isinstance(other, dict) and one.keys() == other.keys()
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, list | tuple):
        for first, second in zip(one, other, strict=True):
            assert_same(first, second)
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    else:
        assert one == other


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


def test_a_flipped_byte_in_any_file_is_found(plain_config, colour_recipe, tmp_path) -> None:
    config = config_from_plain(plain_config())
    run(config, colour_recipe())
    folder = tmp_path / "run" / "checkpoints" / "step_00000006"
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "manifest.json"]
    assert len(files) == 3
    for path in files:
        whole = path.read_bytes()
        damaged = bytearray(whole)
        damaged[len(whole) // 2] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=rf"{path.name}: damaged.*latest"):
            run(config, colour_recipe())
        path.write_bytes(whole)


def test_a_checkpoint_of_another_network_is_refused(plain_config, colour_recipe) -> None:
    run(config_from_plain(plain_config()), colour_recipe())
    recipe = colour_recipe()
    build = recipe.build

    def build_wider(device: torch.device) -> None:
        build(device)
        recipe.net.last = torch.nn.Linear(8, 4)

    recipe.build = build_wider
    with pytest.raises(CheckpointError, match=r"last\.\w+: expected \[4.*\], found \[3"):
        run(config_from_plain(plain_config(run={"num_steps": 8})), recipe)


def test_only_kept_checkpoints_and_the_newest_stay(plain_config, colour_recipe, tmp_path) -> None:
    run(
        config_from_plain(plain_config(run={"save_every": 1, "keep_every": 2, "num_steps": 5})),
        colour_recipe(),
    )
    names = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert names == ["latest", "step_00000002", "step_00000004", "step_00000005"]
