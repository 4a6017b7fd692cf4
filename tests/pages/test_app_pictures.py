"""The page in a real browser: pictures that visitors upload, good ones and others."""

import io
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image, PngImagePlugin

from inference.pictures import open_picture
from tests.pages.app_calls import ask_for, draw, file, finished, problem, unfold
from tests.pages.app_material import noise_png
from tests.pages.conftest import Server, Watched

LIMIT_MB = 0.2
BRUSH = "#painter button[aria-label='Brush Size']"  # there once a picture lies on the canvas


@pytest.fixture(scope="module")
def app(start_app: Callable[..., Server], app_runs: Path) -> Server:
    return start_app(
        weights=f"{{image_encoder: {app_runs / 'image_encoder'}}}",
        upload_limit_mb=LIMIT_MB,
    )


@pytest.fixture
def opened(app: Server, visit: Callable[..., Watched]) -> Iterator[Watched]:
    watched = visit(app.address)
    watched.page.locator("#prompt textarea").wait_for()
    yield watched
    assert watched.outside == []


def facts(app: Server, source: str, folder: Path) -> dict[str, Any]:
    """How the picture at this address was made."""
    (folder / "seen.png").write_bytes(httpx.get(app.address + source).content)
    return open_picture(folder / "seen.png").facts


def upload(page: Any, place: str, name: str, data: bytes) -> None:
    """Give a file to the field within an element, and wait until it is shown."""
    page.locator(f"{place} input[type=file]").first.set_input_files(file(name, data))


def start_from(page: Any, tab: str, data: bytes, name: str = "photo.png") -> None:
    """Open a tab and upload the picture to start from."""
    page.get_by_role("tab", name=tab, exact=True).click()
    panel = "#tasks [role=tabpanel]:visible"
    page.locator(f"{panel} input[type=file]").wait_for(state="attached")
    upload(page, panel, name, data)


@pytest.mark.parametrize(
    ("tab", "task"), [("Image to image", "image_to_image"), ("Variation", "image_variation")]
)
def test_a_picture_is_started_from(opened: Watched, app: Server, tmp_path: Path, tab: str, task: str) -> None:
    page = opened.page
    start_from(page, tab, noise_png())
    page.locator("#tasks [role=tabpanel]:visible img").wait_for()
    ask_for(page, "a red circle")
    made = facts(app, finished(page), tmp_path)
    assert made["task"] == task and made["width_px"] > made["height_px"]  # as the picture is
    assert re.fullmatch("[0-9a-f]{64}.png", Path(made["image"]).name)  # ours, not the visitor's file
    assert opened.errors == []


def open_painter(page: Any) -> None:
    """Open the tab with the brush, and wait until pictures can be given to it."""
    page.get_by_role("tab", name="Inpaint", exact=True).click()
    page.locator("#painter canvas").first.wait_for()


def paint(page: Any) -> None:
    """Draw a line over the middle of the picture, once it lies still in its place."""
    page.locator(BRUSH).wait_for()
    canvas = page.locator("#painter canvas").first
    before = b""
    while (seen := canvas.screenshot()) != before:
        before = seen
    box = canvas.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x - 40, y)
    page.mouse.down()
    page.mouse.move(x + 40, y, steps=10)
    page.mouse.up()


def test_what_is_painted_over_is_drawn_anew(opened: Watched, app: Server, tmp_path: Path) -> None:
    page = opened.page
    open_painter(page)
    upload(page, "#painter", "photo.png", noise_png())
    paint(page)
    ask_for(page, "a red circle")
    made = facts(app, finished(page), tmp_path)
    assert made["task"] == "inpaint"
    mask = Image.open(made["mask"])
    assert mask.size == Image.open(made["image"]).size == (64, 48)
    assert mask.getextrema() == (0, 255) and mask.getpixel((32, 24)) == 255 and mask.getpixel((2, 2)) == 0
    kept, drawn = Image.open(made["image"]).convert("RGB"), open_picture(tmp_path / "seen.png").image
    if drawn.size == kept.size:
        assert drawn.getpixel((1, 1)) == kept.getpixel((1, 1))
    assert opened.errors == []


def test_a_picture_that_would_be_lost_is_not_taken(opened: Watched) -> None:
    """The editor forgets what it is given before it has its canvas."""
    page = opened.page
    open_painter(page)
    pointer = "getComputedStyle(document.querySelector('#painter')).pointerEvents"
    assert page.evaluate(pointer) == "auto"
    page.evaluate("document.querySelectorAll('#painter canvas').forEach((canvas) => canvas.remove())")
    assert page.evaluate(pointer) == "none"


def test_inpainting_needs_paint(opened: Watched) -> None:
    page = opened.page
    open_painter(page)
    ask_for(page, "a red circle")
    assert "upload the one to start from" in problem(page)
    upload(page, "#painter", "photo.png", noise_png())
    page.locator(BRUSH).wait_for()
    ask_for(page, "a red circle")
    page.get_by_text("paint over what is to be drawn anew").last.wait_for()


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("broken.png", noise_png()[:200], "cannot be read as a picture"),
        ("words.png", b"this is no picture at all", "cannot be read as a picture"),
        ("bomb.png", None, "million are taken"),
    ],
)
def test_what_is_no_picture_is_said(opened: Watched, name: str, data: bytes | None, words: str) -> None:
    page = opened.page
    start_from(page, "Image to image", data or bomb(), name)
    page.locator("#tasks [role=tabpanel]:visible img").wait_for(state="attached")
    ask_for(page, "a red circle")
    assert words in problem(page)


def bomb() -> bytes:
    """A small file that says it is a picture of 100 million pixels."""
    stream = io.BytesIO()
    Image.new("1", (10_000, 10_000)).save(stream, format="PNG")
    return stream.getvalue()


def test_a_file_above_the_limit_is_said(opened: Watched) -> None:
    page = opened.page
    start_from(page, "Image to image", noise_png(width=400, height=300))
    page.get_by_text(re.compile("exceed|too large|maximum", re.IGNORECASE)).first.wait_for()


def test_a_controlnet_is_looked_through_and_used(opened: Watched, app: Server, tmp_path: Path) -> None:
    page = opened.page
    unfold(page, "control")
    page.get_by_label("ControlNet", exact=True).click()
    page.get_by_role("option", name="canny").click()
    page.get_by_role("button", name="Show what it sees").click()
    page.get_by_text("Upload a picture for it to look at").wait_for()
    upload(page, "#fold-control", "photo.png", noise_png())
    page.locator("#fold-control img").first.wait_for()
    page.get_by_role("button", name="Show what it sees").click()
    page.locator("#seen img").wait_for()
    ask_for(page, "a red circle")
    [control] = facts(app, finished(page), tmp_path)["controls"]
    assert Path(control["weights"]).name == "canny" and control["image"]
    assert opened.errors == []


def test_pictures_are_part_of_the_prompt(opened: Watched, app: Server, tmp_path: Path) -> None:
    page = opened.page
    unfold(page, "image-prompt")
    field = page.locator("#image-prompt input[type=file]").first
    field.set_input_files([file("a.png", noise_png(1)), file("b.png", noise_png(2))])
    page.locator("#image-prompt img").nth(1).wait_for()
    ask_for(page, "a red circle")
    prompt = facts(app, finished(page), tmp_path)["image_prompt"]
    assert len(prompt["images"]) == 2 and Path(prompt["weights"]).name == "ip_adapter"
    assert opened.errors == []


def test_several_loras_with_weights(opened: Watched, app: Server, tmp_path: Path) -> None:
    page = opened.page
    unfold(page, "loras")
    for name in ("lora_c", "lora_text"):
        page.get_by_label("LoRAs", exact=True).click()
        page.get_by_role("option", name=name, exact=True).click()
    weight = page.locator("#lora-1 input[type=number]")
    weight.fill("0.5")
    weight.press("Tab")
    ask_for(page, "a red circle")
    loras = facts(app, finished(page), tmp_path)["loras"]
    assert [(Path(each["weights"]).name, each["weight"]) for each in loras] == [
        ("lora_c", 1.0),
        ("lora_text", 0.5),
    ]
    assert opened.errors == []


def recall(page: Any, data: bytes) -> None:
    """Give a picture to "Settings from a picture"."""
    unfold(page, "recall")
    upload(page, "#recall", "found.png", data)


def test_settings_come_from_a_picture_of_ours(opened: Watched, app: Server) -> None:
    _, (files, _) = draw(app, prompt="a blue square", seed="77", steps=4, loras="lora_c:0.5")
    recall(opened.page, httpx.get(files[0]["url"]).content)
    opened.page.get_by_text("The form has these settings").wait_for()
    assert opened.page.locator("#prompt textarea").input_value() == "a blue square"
    unfold(opened.page, "details")
    assert opened.page.locator("#steps input[type=number]").input_value() == "4"
    assert opened.errors == []


def test_a_picture_of_another_tool_says_nothing(opened: Watched) -> None:
    recall(opened.page, noise_png())
    opened.page.get_by_text("this picture carries no settings of ours", exact=False).wait_for()


def test_settings_of_a_stranger_are_bounded_and_their_paths_left_alone(opened: Watched, app: Server) -> None:
    _, (files, _) = draw(app)
    picture = Image.open(io.BytesIO(httpx.get(files[0]["url"]).content))
    forged = json.loads(picture.info["kaskade"])
    forged |= {"prompt": "forged " * 1000, "width_px": 16000, "height_px": 16000, "run": "/etc"}
    forged["stage_c"]["steps"] = 9999
    forged["loras"] = [{"weights": "/etc/passwd", "weight": 1e9}]
    info = PngImagePlugin.PngInfo()
    info.add_text("kaskade", json.dumps(forged))
    stream = io.BytesIO()
    picture.save(stream, format="PNG", pnginfo=info)
    page = opened.page
    recall(page, stream.getvalue())
    page.get_by_text("“passwd” is not offered here and was left out").wait_for()
    assert len(page.locator("#prompt textarea").input_value()) == 2000
    unfold(page, "details")
    assert page.locator("#steps input[type=number]").input_value() == "100"


def test_the_log_has_no_traceback(app: Server) -> None:
    assert "Traceback" not in app.output
