"""Votes are kept, whoever gives them and however the program ends; nobody can tell which side is which."""

import base64
import io
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from PIL import Image, PngImagePlugin

from inference.compare.plan import Plan, Question
from inference.compare.votes import ASPECTS, Ballot, Vote, chosen, is_swapped, name_of, order

PLAN = Plan(("one", "other"), 3, tuple(Question(i, f"prompt {i}", "", 0) for i in range(40)))


def test_votes_are_read_as_they_were_given(tmp_path: Path) -> None:
    ballot = Ballot(tmp_path, PLAN)
    votes = [Vote("Éva 漢", i, aspect, "A", True) for i in range(3) for aspect in ASPECTS]
    for vote in votes:
        ballot.add(vote)
    assert Ballot(tmp_path, PLAN).votes() == votes
    assert ballot.of("Éva 漢") == {i: {"alignment": "A", "looks": "A"} for i in range(3)}
    assert ballot.of("Adam") == {}


def test_the_newest_vote_counts_and_the_file_keeps_all(tmp_path: Path) -> None:
    ballot = Ballot(tmp_path, PLAN)
    for choice in ("A", "B", "tie"):
        ballot.add(Vote("Eva", 0, "looks", choice, False))
    assert [vote.choice for vote in ballot.votes()] == ["tie"]
    assert len((tmp_path / "votes.jsonl").read_text().splitlines()) == 3


def test_damaged_lines_are_passed_over_and_spoil_no_later_vote(tmp_path: Path) -> None:
    ballot = Ballot(tmp_path, PLAN)
    ballot.add(Vote("Eva", 0, "looks", "A", False))
    with (tmp_path / "votes.jsonl").open("ab") as file:
        file.write(b'[1, 2]\n{"voter": "Eva", "question": 99}\n\xff\xfe\n{"voter": "Ev')
    ballot.add(Vote("Eva", 1, "looks", "B", False))
    assert [(vote.question, vote.choice) for vote in ballot.votes()] == [(0, "A"), (1, "B")]


@pytest.mark.parametrize(
    "vote",
    [
        Vote("", 0, "looks", "A", False),
        Vote("Eva", 40, "looks", "A", False),
        Vote("Eva", -1, "looks", "A", False),
        Vote("Eva", 0, "taste", "A", False),
        Vote("Eva", 0, "looks", "left", False),
    ],
)
def test_what_is_no_vote_is_not_written(tmp_path: Path, vote: Vote) -> None:
    with pytest.raises(ValueError, match="not a vote"):
        Ballot(tmp_path, PLAN).add(vote)
    assert not (tmp_path / "votes.jsonl").exists()


def test_several_voters_at_once_lose_nothing(tmp_path: Path) -> None:
    ballot = Ballot(tmp_path, PLAN)

    def go(voter: str) -> None:
        for question in range(20):
            ballot.add(Vote(voter, question, "looks", "A", False))

    threads = [threading.Thread(target=go, args=(f"voter {i}",)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ballot.votes()) == 80


def test_a_killed_process_loses_no_vote_that_was_taken(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from tests.unit.inference.test_compare_votes import PLAN;"
        "from inference.compare.votes import Ballot, Vote\n"
        "ballot = Ballot(Path(sys.argv[1]), PLAN)\n"
        "for i in range(40):\n"
        "    ballot.add(Vote('Eva', i, 'looks', 'A', False)); print(i, flush=True)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    told = [process.stdout.readline() for _ in range(10)]
    os.kill(process.pid, signal.SIGKILL)
    told += process.stdout.readlines()
    process.wait()
    assert len(Ballot(tmp_path, PLAN).votes()) >= len(told) >= 10


def test_order_and_sides_are_a_voters_own_and_stay_the_same() -> None:
    assert order(PLAN, "Eva") == order(PLAN, "Eva") != order(PLAN, "Adam")
    assert sorted(order(PLAN, "Eva")) == list(PLAN.questions)
    swaps = [is_swapped(PLAN, f"voter {v}", question) for v in range(25) for question in PLAN.questions]
    assert 430 < sum(swaps) < 570  # of 1000 by lot
    assert swaps == [
        is_swapped(PLAN, f"voter {v}", question) for v in range(25) for question in PLAN.questions
    ]


def test_a_choice_is_of_the_side_that_was_shown() -> None:
    assert [chosen(side, False) for side in ("left", "tie", "right")] == ["A", "tie", "B"]
    assert [chosen(side, True) for side in ("left", "tie", "right")] == ["B", "tie", "A"]


def test_names_are_kept_short_and_on_one_line() -> None:
    assert name_of("  Eva\n Maria\x1b[2J ") == "Eva Maria[2J"
    assert name_of(" \n\t") == "" and len(name_of("x" * 500)) == 60


def test_what_the_page_shows_is_pixels_alone(tmp_path: Path) -> None:
    from inference.compare.page import as_data

    info = PngImagePlugin.PngInfo()
    info.add_text("kaskade", json.dumps({"run": "secret"}))
    image = Image.effect_noise((16, 24), 50).convert("RGB")
    image.save(tmp_path / "secret.png", pnginfo=info, dpi=(72, 72))
    image.save(tmp_path / "other.bmp")
    shown = as_data(tmp_path / "secret.png")
    assert shown == as_data(tmp_path / "other.bmp")
    data = base64.b64decode(shown.partition(",")[2])
    assert b"secret" not in data and b"tEXt" not in data and b"pHYs" not in data
    assert Image.open(io.BytesIO(data)).tobytes() == image.tobytes()
