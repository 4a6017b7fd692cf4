"""A run's folder says with which settings, command and versions it was made."""

import json
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


def test_flat_takes_lists_as_one_value() -> None:
    assert dict(flat({"a": {"b": [1, 2]}, "c": None})) == {"a.b": [1, 2], "c": None}
