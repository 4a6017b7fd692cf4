"""The page's HTTP API: what it draws, and what it does not take from strangers."""

import io
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from PIL import Image

from inference import Cascade, StageSettings
from inference.pictures import open_picture
from inference.recreate import threads
from tests.pages.app_calls import draw, post
from tests.pages.conftest import Server


@pytest.fixture(scope="module")
def app(start_app: Callable[..., Server]) -> Server:
    return start_app(most_steps=50)


def test_it_draws_the_pictures_that_python_draws(app: Server, tiny_runs: Path, tmp_path: Path) -> None:
    kind, (files, made) = draw(app, seed="9", num_images=2)
    assert kind == "complete"
    assert [each["seed"] for each in made] == [9, 10]
    with threads(1):  # as the page has: on some processors two change last bits
        expected = Cascade.load(str(tiny_runs), device="cpu").generate(
            "a red circle", [9, 10], stage_c=StageSettings(2), stage_b=StageSettings(2)
        )
    for file, picture in zip(files, expected, strict=True):
        data = httpx.get(file["url"]).content
        assert Image.open(io.BytesIO(data)).tobytes() == picture.image.tobytes()
        (tmp_path / "got.png").write_bytes(data)
        assert open_picture(tmp_path / "got.png").facts["prompt"] == "a red circle"


def test_gradios_client_draws(app: Server) -> None:
    from gradio_client import Client

    client = Client(app.address, verbose=False)
    paths, made = client.predict(
        prompt="a blue square", seed="1", steps=2, decoder_steps=2, api_name="/text_to_image"
    )
    assert made[0]["prompt"] == "a blue square" and open_picture(paths[0]).facts["seed"] == 1


def test_loras_are_named(app: Server) -> None:
    plain, styled = draw(app), draw(app, loras="lora_c:0.5, lora_text")
    assert plain[0] == styled[0] == "complete"
    contents = [httpx.get(answer[1][0][0]["url"]).content for answer in (plain, styled)]
    assert Image.open(io.BytesIO(contents[0])).tobytes() != Image.open(io.BytesIO(contents[1])).tobytes()


def test_it_says_what_it_offers(app: Server) -> None:
    kind, [told] = post(app, "offers", [])
    assert kind == "complete" and "lora_c" in told["loras"] and told["most_steps"] == 50


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"steps": -3}, "Steps: expected 1 to 50, found -3"),
        ({"steps": 51}, "Steps: expected 1 to 50, found 51"),
        ({"steps": 2.5}, "Steps: expected a whole number, found 2.5"),
        ({"width_px": 10**9}, "Width: expected 16 to 64, found 1000000000"),
        ({"height_px": 1}, "Height: expected 16 to 64, found 1"),
        ({"num_images": 5}, "Pictures: expected 1 to 4, found 5"),
        ({"guidance": -1}, "Guidance: expected 0 to 30, found -1"),
        ({"decoder_steps": -1}, "Decoder steps: expected 1 to 50, found -1"),
        ({"prompt": "a" * 100_000}, "Prompt: 100,000 letters; at most 2,000 are read"),
        ({"seed": "-1"}, "Seed: expected a whole number"),
        ({"seed": "seven"}, "found “seven”"),
        ({"seed": str(2**63)}, "Seed: expected a whole number"),
        ({"loras": "../../etc/passwd"}, "is not offered here"),
        ({"loras": "/tmp/stranger.safetensors:1"}, "is not offered here"),
        ({"loras": "stabilityai/stable-cascade"}, "is not offered here"),
        ({"loras": "lora_c:much"}, "expected name:weight"),
        ({"loras": "lora_c:nan"}, "LoRA lora_c: expected -2 to 2"),
        ({"loras": "lora_c:9"}, "LoRA lora_c: expected -2 to 2, found 9"),
    ],
)
def test_what_cannot_be_had_is_said(app: Server, fields: dict, words: str) -> None:
    kind, told = draw(app, **fields)
    assert kind == "error" and words in str(told)


def test_nothing_that_is_no_setting_breaks_it(app: Server) -> None:
    for odd in ({"prompt": None}, {"steps": "many"}, {"loras": ["lora_c"]}):
        assert draw(app, **odd)[0] == "error"
    assert draw(app, prompt="😀 \u0000 <script>alert(1)</script>")[0] == "complete"
    assert "Traceback" not in str(draw(app, prompt=None))


def test_the_pages_own_functions_are_no_api(app: Server) -> None:
    names = httpx.get(f"{app.address}gradio_api/info", timeout=60).json()["named_endpoints"]
    assert {*names} == {"/text_to_image", "/offers"}


def test_it_asked_nothing_of_the_disk_that_strangers_named(app: Server) -> None:
    """After all of the above: the log has no traceback and no failure of ours."""
    assert "Traceback" not in app.output
