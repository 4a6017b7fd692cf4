"""The page in a real browser: drawing, stopping, the gallery, several visitors."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from inference.pictures import open_picture
from tests.pages.app_calls import FIELDS, SECONDS, ask_for, draw, finished, unfold
from tests.pages.conftest import Server, Watched

LONG = "1000"  # steps


@pytest.fixture(scope="module")
def app(start_app: Callable[..., Server]) -> Server:
    return start_app(most_steps=LONG)


@pytest.fixture
def opened(app: Server, visit: Callable[..., Watched]) -> Watched:
    watched = visit(app.address)
    watched.page.locator("#prompt textarea").wait_for()
    yield watched
    assert watched.errors == []
    assert watched.outside == []


def set_steps(page, steps: str) -> None:
    unfold(page, "details")
    number = page.locator("#steps input[type=number]")
    number.fill(steps)
    number.press("Tab")


def next_is_drawn(app: Server, kept: Path) -> None:
    """The next one's turn comes, and what was stopped before has left no picture."""
    assert draw(app)[0] == "complete"
    steps = [open_picture(path).facts["stage_c"]["steps"] for path in kept.glob("*.png")]
    assert steps and int(LONG) not in steps


def test_a_prompt_is_drawn_by_the_keyboard_alone(opened: Watched, app: Server, tmp_path: Path) -> None:
    page = opened.page
    page.locator("#prompt textarea:focus").wait_for()  # where one begins to type
    page.keyboard.type("a blue square")
    page.keyboard.press("Enter")
    source = finished(page)
    (tmp_path / "seen.png").write_bytes(httpx.get(app.address + source).content)
    assert open_picture(tmp_path / "seen.png").facts["prompt"] == "a blue square"
    assert page.locator("img.picture").get_attribute("alt") == "a blue square"
    assert page.evaluate("document.querySelector('img.picture').naturalWidth") == 32


def test_the_button_can_be_reached_and_pressed_by_keyboard(opened: Watched) -> None:
    page = opened.page
    page.locator("#draw:not([disabled])").wait_for()
    page.locator("#prompt textarea").fill("a red circle")
    for _ in range(20):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == "draw":
            break
    assert page.evaluate("document.activeElement.id") == "draw"
    # The keyboard's place is seen, once what gradio animates has ended.
    page.wait_for_function("getComputedStyle(document.activeElement).outlineWidth === '2px'")
    page.keyboard.press("Enter")
    finished(page)


def test_a_long_drawing_shows_previews_and_can_be_cancelled(opened: Watched, app: Server, kept: Path) -> None:
    page = opened.page
    set_steps(page, LONG)
    ask_for(page, "a red circle")
    page.locator("img.preview").wait_for()
    assert page.locator("img.preview").get_attribute("src").startswith("data:image/jpeg;base64,")
    page.get_by_text("Stage C composes: step").wait_for()
    page.locator("#cancel").click()
    page.get_by_text("Stopped.").wait_for()
    page.locator("#draw:not([disabled])").wait_for()
    assert page.locator("#cancel").count() == 0 or not page.locator("#cancel").is_visible()
    next_is_drawn(app, kept)


def test_closing_the_window_stops_the_drawing(app: Server, kept: Path, visit: Callable[..., Watched]) -> None:
    page = visit(app.address).page
    page.locator("#prompt textarea").wait_for()
    set_steps(page, LONG)
    ask_for(page, "a red circle")
    page.locator("img.preview").wait_for()
    page.close()
    next_is_drawn(app, kept)


def test_a_program_that_hangs_up_stops_its_drawing(app: Server, kept: Path) -> None:
    with asking(app):
        pass
    next_is_drawn(app, kept)


def test_a_program_that_hangs_up_in_the_line_leaves_it(opened: Watched, app: Server, kept: Path) -> None:
    with asking(app):
        with asking(app):
            ask_for(opened.page, "a blue square")
            opened.page.get_by_text("Waiting: 2 before you").wait_for()
        opened.page.get_by_text("Waiting: 1 before you").wait_for()
    finished(opened.page)


@contextmanager
def asking(app: Server) -> Iterator[None]:
    """A program that listens to its long drawing, or waits for its turn, and at the end hangs up."""
    call = f"{app.address}gradio_api/call/text_to_image"
    data = [*(FIELDS | {"steps": int(LONG)}).values()]
    event = httpx.post(call, json={"data": data}, timeout=SECONDS).json()["event_id"]
    with httpx.stream("GET", f"{call}/{event}", timeout=SECONDS) as answer:
        lines = answer.iter_lines()  # which ends the call once nobody holds it
        assert next(lines) == "event: generating"
        yield


def test_a_second_visitor_waits_and_hears_its_place(
    opened: Watched, app: Server, visit: Callable[..., Watched]
) -> None:
    first, second = opened.page, visit(app.address).page
    set_steps(first, LONG)
    ask_for(first, "a red circle")
    first.locator("img.preview").wait_for()
    second.locator("#prompt textarea").wait_for()
    ask_for(second, "a blue square")
    second.get_by_text("Waiting: 1 before you").wait_for()
    first.locator("#cancel").click()
    finished(second)
    assert not first.locator("#gallery").is_visible()  # each visitor has a gallery of their own


def test_pictures_are_gathered_and_their_settings_used_again(opened: Watched, tmp_path: Path) -> None:
    page = opened.page
    unfold(page, "size")
    page.locator("#seed input, #seed textarea").fill("11")
    set_steps(page, "3")
    ask_for(page, "a red circle")
    first = finished(page)
    page.locator("#seed input, #seed textarea").fill("")
    ask_for(page, "a blue square")
    page.locator("img.picture[alt='a blue square']").wait_for()
    thumbnails = page.locator("#gallery button.thumbnail-item, #gallery .thumbnail-lg")
    thumbnails.nth(1).wait_for()
    assert thumbnails.count() == 2  # newest first
    thumbnails.nth(1).click()
    page.locator("img.picture[alt='a red circle']").wait_for()
    assert page.locator("img.picture").get_attribute("src") == first
    page.locator("#how > button").click()
    table = page.locator("dl.settings").inner_text()
    assert "a red circle" in table and "11" in table
    with page.expect_download() as download:
        page.locator("#download").click()
    download.value.save_as(tmp_path / "saved.png")
    facts = open_picture(tmp_path / "saved.png").facts
    assert facts["seed"] == 11 and facts["stage_c"]["steps"] == 3
    page.locator("#again").click()
    page.get_by_text("The form has these settings").wait_for()
    assert page.locator("#prompt textarea").input_value() == "a red circle"
    assert page.locator("#seed input, #seed textarea").input_value() == "11"


def test_a_size_and_a_number_of_pictures(opened: Watched) -> None:
    page = opened.page
    unfold(page, "size")
    page.get_by_label("Choose the size").check()
    page.locator("#width_px input[type=number]").fill("48")
    page.locator("#width_px input[type=number]").press("Tab")
    page.locator("#num_images input[type=number]").fill("2")
    page.locator("#num_images input[type=number]").press("Tab")
    ask_for(page, "a red circle")
    finished(page)
    assert page.evaluate("document.querySelector('img.picture').naturalWidth") == 48
    assert page.locator("#gallery button.thumbnail-item, #gallery .thumbnail-lg").count() == 2


def test_nothing_typed_becomes_part_of_the_page(opened: Watched) -> None:
    page = opened.page
    ask_for(page, "<img src=x onerror=\"document.title='broken in'\"> & 'quotes'")
    finished(page)
    page.locator("#how > button").click()
    assert "<img src=x" in page.locator("dl.settings").inner_text()
    assert page.title() == "Kaskade"


def test_on_a_phone_nothing_is_cut_off(app: Server, visit: Callable[..., Watched]) -> None:
    watched = visit(app.address, width=390, height=844, dark=True)
    page = watched.page
    page.locator("#prompt textarea").wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.get_by_role("tab").count() == 4  # none of them hidden behind three dots
    assert page.locator("#draw").bounding_box()["height"] >= 44  # as high as a thumb needs
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(16, 20, 19)"
    ask_for(page, "a red circle")
    finished(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert (watched.errors, watched.outside) == ([], [])


def test_the_log_has_no_traceback(app: Server) -> None:
    assert "Traceback" not in app.output
