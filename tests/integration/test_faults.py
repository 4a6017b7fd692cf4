"""A rank that dies, fails or hangs ends the others with its reason; slow ones end nobody."""

import json
import re
import sys
from pathlib import Path

import pytest

from tests.integration.launching import free_ports, launched
from tests.integration.tiny_experiment import Call

HERE = Path(__file__).parent
ENDS = {  # fate: status of the one that meets it, and what the other one says
    "kill": (-9, r"rank 1 on \S+ died: its process \d+ ended without a word .*; the same command goes on .*"),
    "kill_first": (-9, r"rank 0 on \S+ died: its process \d+ ended without a word .*"),
    "apart": (-9, r"rank 1 on \S+ died: its process \d+ ended without a word .*"),
    "raise": (1, r"rank 1 on \S+ failed: ValueError: a picture of two lines"),
    # The first rank keeps the store here: it stays until the other has read there why all end.
    "raise_first": (1, r"rank 0 on \S+ failed: ValueError: a picture of two lines"),
    "exit": (3, r"rank 1 on \S+ failed: exit status 3"),
    "stop": (-9, r"rank 1 on \S+ gave no sign of life for 6 s: it hangs, was stopped, or .*"),
}


@pytest.fixture(scope="module")
def lives(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The words of all ranks, and their statuses."""
    folder = tmp_path_factory.mktemp("lives")
    command = [sys.executable, str(HERE / "fault_worker.py"), str(folder), str(free_ports(32))]
    done = launched(command)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.mark.parametrize("fate", ENDS)
def test_the_other_rank_ends_with_the_reason_in_one_line(lives: Path, fate: str) -> None:
    statuses = json.loads((lives / "statuses.json").read_text())
    victim = 0 if fate.endswith("_first") else 1
    status, reason = ENDS[fate]
    said = (lives / f"{fate}_{1 - victim}.txt").read_text()
    assert statuses[f"{fate}_{victim}"] == status and statuses[f"{fate}_{1 - victim}"] == 1, said
    assert re.fullmatch(f"error: {reason}\n", said), said


def test_a_rank_that_fails_shows_its_traceback_once(lives: Path) -> None:
    said = (lives / "raise_1.txt").read_text()
    assert said.count("Traceback") == 1 and said.endswith("ValueError: a picture\nof two lines\n")


def test_a_mistake_that_both_find_is_said_once(lives: Path) -> None:
    said = [(lives / f"mistake_{rank}.txt").read_text() for rank in range(2)]
    assert said == ["error: data.shards: nothing there\n", ""]
    assert json.loads((lives / "statuses.json").read_text())["mistake_0"] == 2


@pytest.mark.parametrize("fate", ["slow", "late", "plain"])
def test_a_rank_that_takes_its_time_is_waited_for(lives: Path, fate: str) -> None:
    statuses = json.loads((lives / "statuses.json").read_text())
    for rank in range(2):
        assert (lives / f"{fate}_{rank}.txt").read_text() == "through\n"
        assert statuses[f"{fate}_{rank}"] == 0


@pytest.mark.parametrize("launch", range(6))
def test_ranks_leave_with_all_that_is_to_do_and_say_at_the_end(lives: Path, launch: int) -> None:
    """Several launches, for gloo's threads abort an interpreter that is taken down only now and then."""
    statuses = json.loads((lives / "statuses.json").read_text())
    for rank in range(2):
        assert (lives / f"leave{launch}_{rank}.txt").read_text() == "through\nclosed\n"
        assert statuses[f"leave{launch}_{rank}"] == 0


@pytest.mark.parametrize("rank", [0, 1])
def test_ranks_that_never_meet_say_so_in_one_line(
    call: Call, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, rank: int
) -> None:
    """So it is where a launcher keeps no store for them, as srun."""
    port = str(free_ports(1))
    place = {"RANK": str(rank), "LOCAL_RANK": "0", "WORLD_SIZE": "2", "MASTER_PORT": port}
    for name, value in (place | {"MASTER_ADDR": "127.0.0.1", "GLOO_SOCKET_IFNAME": "lo"}).items():
        monkeypatch.setenv(name, value)
    assert call("experiment=tiny", "parallel.timeout_s=1") == 1
    said = capsys.readouterr().err
    assert re.fullmatch(
        r"error: parallel\.timeout_s: the 2 processes did not meet at 127\.0.* 1 s .*\n", said
    )
