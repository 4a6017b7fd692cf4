"""Trackers keep what they are told; one that fails is named once and never stops a run."""

import csv
import time
from pathlib import Path

import pytest
from PIL import Image

from modules.schema import ConfigError
from train.reports.trackers import TRACKERS, RunFacts, Tracker, Trackers, chosen
from train.reports.trackers.csv import CsvTracker
from train.reports.trackers.tensorboard import TensorBoardTracker
from train.reports.trackers.wandb import WandbTracker


def facts(folder: Path, step: int = 0) -> RunFacts:
    return RunFacts(folder, "name", "0123abcd", step, {"run": {"seed": 0}})


def table(folder: Path, step: int = 0) -> CsvTracker:
    tracker = CsvTracker()
    tracker.start(facts(folder, step))
    return tracker


def rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_a_metric_that_comes_later_gets_a_column(tmp_path: Path) -> None:
    tracker = table(tmp_path)
    tracker.scalars(1, {"loss": 0.5})
    tracker.scalars(2, {"loss": 0.25, "extra": 3.0})
    tracker.scalars(3, {"extra": 4.0})
    assert rows(tmp_path / "metrics.csv") == [
        {"step": "1", "loss": "0.5", "extra": ""},
        {"step": "2", "loss": "0.25", "extra": "3.0"},
        {"step": "3", "loss": "", "extra": "4.0"},
    ]


def test_rows_after_the_step_to_go_on_from_are_dropped(tmp_path: Path) -> None:
    tracker = table(tmp_path)
    for step in (1, 2, 3):
        tracker.scalars(step, {"loss": float(step)})
    table(tmp_path, 2).scalars(3, {"loss": 30.0})
    assert [row["loss"] for row in rows(tmp_path / "metrics.csv")] == ["1.0", "2.0", "30.0"]


def test_columns_that_only_dropped_rows_had_are_dropped_with_them(tmp_path: Path) -> None:
    tracker = table(tmp_path)
    tracker.scalars(1, {"loss": 1.0})
    as_it_was = (tmp_path / "metrics.csv").read_bytes()
    tracker.scalars(2, {"loss": 2.0, "extra": 3.0})
    table(tmp_path, 1)
    assert (tmp_path / "metrics.csv").read_bytes() == as_it_was


@pytest.mark.parametrize("cut", range(1, 9))
def test_a_half_written_last_line_is_dropped(tmp_path: Path, cut: int) -> None:
    """What a killed process left of "12,0.5": its first bytes look like a row of step 1 or 12."""
    path = tmp_path / "metrics.csv"
    tracker = table(tmp_path)
    tracker.scalars(11, {"loss": 0.75})
    whole = path.read_bytes()
    tracker.scalars(12, {"loss": 0.5})
    path.write_bytes(path.read_bytes()[:-cut])
    table(tmp_path, 20)
    assert path.read_bytes() == whole


class Failing(Tracker):
    calls = 0

    def start(self, run: RunFacts) -> None:
        """Nothing to open."""

    def scalars(self, step: int, values: dict) -> None:
        self.calls += 1
        if step == 2:
            raise ConnectionError("the server is gone")

    def picture(self, step: int, name: str, image: Image.Image) -> None:
        self.calls += 1

    def close(self) -> None:
        self.calls += 1


def test_a_failing_tracker_warns_once_and_is_left_out(tmp_path: Path) -> None:
    failing, warnings = Failing(), []
    trackers = Trackers({"bad": failing, "csv": CsvTracker()}, facts(tmp_path), warnings.append)
    for step in range(1, 5):
        trackers.scalars(step, {"loss": 1.0, "broken": float("nan")})
    trackers.picture(4, "samples", Image.new("RGB", (4, 4)))
    trackers.close()
    assert failing.calls == 2
    assert warnings == ["tracker bad failed and is left out from now on: ConnectionError: the server is gone"]
    assert [row["step"] for row in rows(tmp_path / "metrics.csv")] == ["1", "2", "3", "4"]
    assert "broken" not in rows(tmp_path / "metrics.csv")[0]


class Missing(Failing):
    def start(self, run: RunFacts) -> None:
        raise ImportError("No module named 'wandb'")


def test_a_tracker_that_cannot_start_is_left_out(tmp_path: Path) -> None:
    warnings: list[str] = []
    missing = Missing()
    trackers = Trackers({"wandb": missing}, facts(tmp_path), warnings.append)
    trackers.scalars(1, {"loss": 1.0})
    assert len(warnings) == 1 and "wandb" in warnings[0] and missing.calls == 0


def test_trackers_are_chosen_by_the_names_of_their_files() -> None:
    assert {name: type(made) for name, made in chosen(dict.fromkeys(TRACKERS, True)).items()} == TRACKERS
    assert TRACKERS.keys() == {"csv", "tensorboard", "wandb"}
    assert list(chosen({"csv": True, "tensorboard": False, "wandb": None})) == ["csv"]
    assert chosen({"wandb": {"project": "mine"}})["wandb"] == WandbTracker(project="mine")


@pytest.mark.parametrize(
    "settings, said",
    [
        ({"tensorbord": True}, "tracker.tensorbord: no tracker is called so; did you mean 'tensorboard'?"),
        ({"wandb": {"projekt": "x"}}, "tracker.wandb.projekt: unknown key; did you mean 'project'?"),
        ({"csv": "yes"}, "tracker.csv: expected settings (), found 'yes'"),
    ],
)
def test_a_wrong_tracker_is_one_line(settings: dict, said: str) -> None:
    with pytest.raises(ConfigError) as found:
        chosen(settings)
    assert str(found.value) == said


def test_tensorboard_gets_numbers_and_pictures(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    tracker = TensorBoardTracker()
    tracker.start(facts(tmp_path))
    tracker.scalars(1, {"loss": 0.5})
    tracker.picture(1, "samples", Image.new("RGB", (8, 8), "red"))
    tracker.close()
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert events.Scalars("loss")[0].value == 0.5 and events.Images("samples")[0].width == 8


def test_tensorboard_holds_what_a_killed_run_told_it_and_hides_what_is_told_again(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    killed, again = TensorBoardTracker(), TensorBoardTracker()
    killed.start(facts(tmp_path))
    for step in (1, 2, 3):
        killed.scalars(step, {"loss": float(step)})
    again.start(facts(tmp_path, 2))  # the first is still open: nothing was left to its end
    again.scalars(3, {"loss": 30.0})
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(tmp_path / "tensorboard")).Reload().Scalars("loss")
    assert [(event.step, event.value) for event in found] == [(1, 1.0), (2, 2.0), (3, 30.0)]
    killed.close()
    again.close()


def test_wandb_has_what_a_run_told_on_the_disk_before_the_run_ends(tmp_path: Path) -> None:
    """A kill of the machine takes wandb's own process with it; that writes every 15 seconds by itself."""
    pytest.importorskip("wandb")
    tracker = WandbTracker()
    tracker.start(facts(tmp_path))
    assert tracker.run.settings.x_transaction_log_flush_interval == 1
    tracker.scalars(1, {"told": 0.5})
    end = time.monotonic() + 100
    while b"told" not in next((tmp_path / "wandb").glob("offline-run-*/*.wandb")).read_bytes():
        assert time.monotonic() < end
        time.sleep(0.05)
    tracker.close()


def test_wandb_runs_offline_and_goes_on_as_the_same_run(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    for step in (1, 2):
        tracker = WandbTracker()
        tracker.start(facts(tmp_path, step - 1))
        tracker.scalars(step, {"loss": 0.5})
        tracker.picture(step, "samples", Image.new("RGB", (8, 8)))
        tracker.close()
    offline = list((tmp_path / "wandb").glob("offline-run-*"))
    assert offline and all("-0123abcd" in path.name for path in offline)  # -1 behind it within a second
