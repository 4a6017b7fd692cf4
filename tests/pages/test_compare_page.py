"""Blind votes in a real browser."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from inference.compare.__main__ import main
from inference.compare.plan import Plan, read_plan
from inference.compare.votes import is_swapped, order
from tests.pages.conftest import Server, Watched

SLOW_MS = 60_000  # of a machine that does much else
PROMPTS = ("a red circle", "a blue square", "<b>a cross</b>")
Visit = Callable[..., Watched]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A comparison of red pictures, A, with blue ones, B."""
    place = tmp_path_factory.mktemp("compare")
    for side, colour in (("secret_one", "red"), ("secret_two", "blue")):
        (place / side).mkdir()
        for i in range(len(PROMPTS)):
            Image.new("RGB", (64, 64), colour).save(place / side / f"{i}.png")
    (place / "prompts.txt").write_text("\n".join(PROMPTS))
    sides = [str(place / "secret_one"), str(place / "secret_two")]
    made = [f"prompts={place / 'prompts.txt'}", f"output={place / 'out'}", "page=false"]
    assert main([*sides, *made]) == 0
    return place / "out"


@pytest.fixture(scope="module")
def served(folder: Path, start_page: Callable[..., Server]) -> Iterator[Server]:
    yield start_page("inference.compare", "vote", str(folder))


def enter(visit: Visit, server: Server, voter: str, **window: Any) -> Watched:
    watched = visit(server.address, **window)
    watched.page.get_by_label("Your name").fill(voter, timeout=SLOW_MS)
    watched.page.get_by_role("button", name="Begin").click()
    watched.page.locator(".c-ask").wait_for(timeout=SLOW_MS)
    return watched


def votes(folder: Path, voter: str) -> list[dict[str, Any]]:
    lines = (folder / "votes.jsonl").read_text().splitlines() if (folder / "votes.jsonl").exists() else []
    return [record for record in map(json.loads, lines) if record["voter"] == voter]


def colours(page: Any) -> list[str]:
    """Which side is on the left and which on the right, by the colours of the pixels."""
    page.wait_for_function("[...document.querySelectorAll('.c-pair img')].every((i) => i.naturalWidth > 0)")
    return page.evaluate(
        """() => [...document.querySelectorAll('.c-pair img')].map((image) => {
        const canvas = document.createElement('canvas'), context = canvas.getContext('2d');
        context.drawImage(image, 0, 0);
        return context.getImageData(3, 3, 1, 1).data[0] > 128 ? 'A' : 'B'; })"""
    )


def asked(page: Any, words: str, done: int) -> None:
    """Wait for the question with these words, after so many pairs."""
    page.get_by_text(f"{done} of {len(PROMPTS)} pairs").wait_for(timeout=SLOW_MS)
    page.locator(".c-ask", has_text=words).wait_for(timeout=SLOW_MS)


def test_a_vote_by_mouse_is_written_at_once_for_the_side_that_was_shown(
    visit: Visit, served: Server, folder: Path
) -> None:
    watched = enter(visit, served, "Mouse")
    page, plan = watched.page, read_plan(folder)
    first = order(plan, "Mouse")[0]
    left, right = colours(page)
    assert (left == "B") == is_swapped(plan, "Mouse", first)
    page.get_by_role("button", name="Left", exact=True).click()
    asked(page, "looks better", 0)
    [vote] = votes(folder, "Mouse")
    assert (vote["question"], vote["aspect"], vote["choice"]) == (first.number, "alignment", left)
    page.get_by_role("button", name="Right", exact=True).click()
    asked(page, "fits the prompt", 1)
    assert [vote["choice"] for vote in votes(folder, "Mouse")] == [left, right]
    assert (watched.errors, watched.outside) == ([], [])


def test_votes_by_key_and_one_back(visit: Visit, served: Server, folder: Path) -> None:
    page = enter(visit, served, "Keys").page
    left, right = colours(page)
    page.keyboard.press("ArrowDown")
    asked(page, "looks better", 0)
    page.keyboard.press("ArrowRight")
    asked(page, "fits the prompt", 1)
    page.keyboard.press("Backspace")
    asked(page, "looks better", 1)
    assert colours(page) == [left, right]
    page.keyboard.press("ArrowLeft")
    asked(page, "fits the prompt", 1)
    assert [vote["choice"] for vote in votes(folder, "Keys")] == ["tie", right, left]


def test_a_voter_goes_on_where_they_stopped_until_all_is_said(
    visit: Visit, served: Server, folder: Path
) -> None:
    page = enter(visit, served, "Twice").page
    for done, words in ((0, "looks better"), (1, "fits the prompt"), (1, "looks better")):
        page.keyboard.press("ArrowLeft")
        asked(page, words, done)
    page = enter(visit, served, " Twice ").page
    asked(page, "looks better", 1)
    for done, words in ((2, "fits the prompt"), (2, "looks better")):
        page.keyboard.press("ArrowDown")
        asked(page, words, done)
    page.keyboard.press("ArrowDown")
    page.get_by_text("Thank you: all 3 pairs are answered").wait_for(timeout=SLOW_MS)
    page.locator("#c-tie[disabled]").wait_for(timeout=SLOW_MS)
    page.keyboard.press("ArrowDown")  # there is nothing left to vote for
    count(page)  # by when a vote would have come
    assert len(votes(folder, "Twice")) == 6


def count(page: Any) -> None:
    """Open the results, and count the votes."""
    page.get_by_text("Results (they say").click()
    page.get_by_role("button", name="Count the votes now").click()
    page.locator(".c-report").wait_for(timeout=SLOW_MS)


def test_nothing_tells_which_side_is_which_before_the_results(visit: Visit, served: Server) -> None:
    heard: list[str] = []
    watched = visit(served.address)
    watched.page.on("response", lambda response: heard.append(response.url + body_of(response)))
    watched.page.get_by_label("Your name").fill("Spy", timeout=SLOW_MS)
    watched.page.get_by_role("button", name="Begin").click()
    watched.page.locator(".c-pair img").first.wait_for(timeout=SLOW_MS)
    told = watched.page.content() + "".join(heard)
    assert "secret_" not in told and "00000.png" not in told
    assert "<b>a cross</b>" not in watched.page.locator("#c-view").inner_html()
    count(watched.page)
    assert "secret_one" in watched.page.locator(".c-report").inner_text()
    assert (watched.errors, watched.outside) == ([], [])


def body_of(response: Any) -> str:
    try:
        return response.text()
    except Exception:  # streams and what has no text
        return ""


def test_a_voter_needs_a_name(visit: Visit, served: Server) -> None:
    page = visit(served.address).page
    page.get_by_role("button", name="Begin").click(timeout=SLOW_MS)
    page.get_by_text("Please give a name").first.wait_for(timeout=SLOW_MS)


def test_it_fits_a_phone(visit: Visit, served: Server) -> None:
    page = enter(visit, served, "Phone", width=390, height=800, dark=True).page
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    boxes = [box for image in page.locator(".c-pair img").all() if (box := image.bounding_box())]
    assert len(boxes) == 2 and all(box["width"] > 150 for box in boxes)
    assert boxes[0]["y"] == boxes[1]["y"]


def test_a_comparison_that_lacks_pictures_does_not_open(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan: Plan = read_plan(folder)
    (tmp_path / "comparison.json").write_text((folder / "comparison.json").read_text())
    assert main(["vote", str(tmp_path)]) == 2
    assert f"pictures of {len(plan.questions)} pairs are missing" in capsys.readouterr().err
