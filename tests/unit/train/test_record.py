"""A run's folder says with which settings, command and versions it was made."""

import json
import math
from pathlib import Path

import pytest
import torch
import yaml

from modules.schema import ConfigError
from train.reports.record import RunRecord, flat


def test_every_start_is_noted(tmp_path: Path) -> None:
    for step in (0, 5):
        record = RunRecord(tmp_path, {"run": {"seed": 1}, "betas": (0.9, 0.99)})
        record.begin(step, world_size=2, device="cpu")
        record.end({"loss": 0.5})
    starts = json.loads((tmp_path / "run.json").read_text())["starts"]
    assert [(start["from_step"], start["loss"]) for start in starts] == [(0, 0.5), (5, 0.5)]
    assert starts[0]["versions"]["torch"] == torch.__version__ and starts[0]["ended"] >= starts[0]["started"]
    assert yaml.safe_load((tmp_path / "config.yaml").read_text()) == {
        "run": {"seed": 1},
        "betas": [0.9, 0.99],
    }


def test_trackers_know_a_run_by_one_id_for_life(tmp_path: Path) -> None:
    first = RunRecord(tmp_path / "run", {})
    first.begin(0, 1, "cpu")
    assert RunRecord(tmp_path / "run", {}).run_id == first.run_id != RunRecord(tmp_path / "other", {}).run_id
    assert RunRecord(tmp_path / "other", {}, run_id="ofacheck").run_id == "ofacheck"


@pytest.mark.parametrize("damaged", ["", '{"starts": []}', "[1]", '{"id": "a", "starts": [{"comm'])
def test_a_damaged_record_is_named(tmp_path: Path, damaged: str) -> None:
    (tmp_path / "run.json").write_text(damaged)
    with pytest.raises(ConfigError, match="run.json: not the record of a run.*remove it"):
        RunRecord(tmp_path, {})


def test_changes_are_named_by_their_whole_key(tmp_path: Path) -> None:
    first = RunRecord(tmp_path, {"run": {"seed": 1, "dir": "a"}, "betas": (0.9, 0.99)})
    assert first.changes() == []
    first.begin(0, 1, "cpu")
    second = RunRecord(tmp_path, {"run": {"seed": 2, "dir": "a"}, "betas": (0.9, 0.99), "new": 1})
    assert second.changes() == ["run.seed: 1 → 2", "new: None → 1"]


def test_a_loss_that_is_not_finite_leaves_a_record_that_any_json_reader_takes(tmp_path: Path) -> None:
    record = RunRecord(tmp_path, {})
    record.begin(0, 1, "cpu")
    record.end({"loss": math.nan, "step": 3})

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    start = json.loads((tmp_path / "run.json").read_text(), parse_constant=refuse)["starts"][0]
    assert start["loss"] is None and start["step"] == 3


def test_damaged_settings_are_named(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("run: [1\nseed: 2")
    with pytest.raises(ConfigError, match="config.yaml: not the settings of a run.*remove it"):
        RunRecord(tmp_path, {}).changes()


def test_flat_takes_lists_as_one_value() -> None:
    assert dict(flat({"a": {"b": [1, 2]}, "c": None})) == {"a.b": [1, 2], "c": None}
