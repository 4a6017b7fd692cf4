"""The page behind a proxy that has it under a path, in a real browser."""

from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from inference.pictures import open_picture
from tests.pages.app_calls import ask_for, file, finished
from tests.pages.app_material import noise_png
from tests.pages.conftest import Server, Watched
from tests.pages.proxy import Proxy, under


@pytest.fixture(scope="module")
def app(start_app: Callable[..., Server]) -> Server:
    return start_app(root_path="/kaskade", output="null")


@pytest.fixture(scope="module")
def proxy(app: Server) -> Iterator[Proxy]:
    with under("/kaskade/", app.address) as proxy:
        yield proxy


def test_all_that_the_page_asks_for_lies_under_its_path(
    proxy: Proxy, visit: Callable[..., Watched], tmp_path: Path
) -> None:
    watched = visit(proxy.address)
    page = watched.page
    page.locator("#prompt textarea").wait_for()
    page.get_by_role("tab", name="Image to image", exact=True).click()
    place = page.locator("#tasks [role=tabpanel]:visible")
    place.locator("input[type=file]").first.set_input_files(file("photo.png", noise_png()))
    place.locator("img").wait_for()
    ask_for(page, "a red circle")
    finished(page)
    with page.expect_download() as download:
        page.locator("#download").click()
    download.value.save_as(tmp_path / "saved.png")
    assert open_picture(tmp_path / "saved.png").facts["task"] == "image_to_image"
    assert page.locator("link[rel=icon]").get_attribute("href").startswith("data:image/svg+xml")
    assert (watched.errors, watched.outside, proxy.strayed) == ([], [], [])


def test_programs_draw_through_the_proxy(proxy: Proxy) -> None:
    from gradio_client import Client

    client = Client(proxy.address, verbose=False)
    paths, _ = client.predict(prompt="a blue square", steps=2, decoder_steps=2, api_name="/text_to_image")
    assert open_picture(paths[0]).facts["prompt"] == "a blue square"


def test_the_page_knows_its_address_from_what_the_proxy_says(app: Server) -> None:
    said = {"Host": "example.org:8443", "X-Forwarded-Proto": "https"}
    page = httpx.get(app.address, headers=said, timeout=60).text
    assert '"root":"https://example.org:8443/kaskade"' in page
