"""Calls of the page's HTTP API, and what tests of the page do in a browser again and again."""

import json
from typing import Any

import httpx

from tests.pages.conftest import Server

SECONDS = 120
FIELDS = {  # of the endpoint text_to_image, in order, with what counts where nothing is asked for
    "prompt": "a red circle",
    "negative_prompt": "",
    "seed": "5",
    "width_px": None,
    "height_px": None,
    "num_images": 1,
    "steps": 2,
    "guidance": None,
    "decoder_steps": 2,
    "decoder_guidance": None,
    "loras": "",
}


def post(server: Server, name: str, data: list[Any]) -> tuple[str, Any]:
    """The last event of an endpoint, "complete" or "error", and what it says."""
    call = f"{server.address}gradio_api/call/{name}"
    event = httpx.post(call, json={"data": data}, timeout=SECONDS).json()["event_id"]
    lines = httpx.get(f"{call}/{event}", timeout=SECONDS).text.strip().splitlines()
    kind, told = lines[-2].removeprefix("event: "), lines[-1].removeprefix("data: ")
    return kind, json.loads(told)


def draw(server: Server, **fields: Any) -> tuple[str, Any]:
    """What text_to_image answers to these fields."""
    return post(server, "text_to_image", [*(FIELDS | fields).values()])


def ask_for(page: Any, prompt: str) -> None:
    """Type a prompt and press Enter."""
    box = page.locator("#prompt textarea")
    box.fill(prompt)
    box.press("Enter")


def finished(page: Any) -> str:
    """Wait for a new picture, which is there when its pixels are; the address of its file."""
    page.locator("#draw:not([disabled])").wait_for()
    page.wait_for_function("document.querySelector('img.picture')?.naturalWidth > 0")
    return page.locator("img.picture").get_attribute("src")


def problem(page: Any) -> str:
    """Wait for a message in the place of a picture."""
    place = page.locator(".panel.problem")
    place.wait_for()
    return place.inner_text()


def unfold(page: Any, name: str) -> None:
    """Open a folded section."""
    page.locator(f"#fold-{name} > button").click()


def file(name: str, data: bytes) -> dict[str, Any]:
    """A file to be uploaded."""
    return {"name": name, "mimeType": "image/png", "buffer": data}
