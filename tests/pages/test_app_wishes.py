"""What visitors may ask for, and the pictures that they send: without a page, without networks."""

import io
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest
from PIL import Image

from inference.app.fields import painter
from inference.app.offers import Offers, find_offers
from inference.app.remembered import facts_in, remembered
from inference.app.settings import AppSettings, Bounds
from inference.app.uploads import Uploads
from inference.app.wishes import Wish, requests_of
from inference.app.words import Refused
from inference.facts import Origin, facts_of
from inference.settings import Request, StageSettings, Weights
from tests.pages.app_material import noise_png, write_runs

BOUNDS = Bounds(own_side_px=64, most_side_px=128, most_steps=50, most_images=4, most_letters=100)
OFFERS = Offers(
    {"style": "/runs/style"},
    {"edges": "/runs/edges", "gap": "/runs/gap"},
    {"looks": "/runs/looks"},
    {"edges": "canny", "gap": "inpainting"},
)


@pytest.fixture
def sent(tmp_path: Path) -> Callable[[bytes], Path]:
    """Writes what a visitor sends to a file, as gradio does."""

    def write(data: bytes) -> Path:
        path = tmp_path / f"sent_{len(list(tmp_path.iterdir()))}.png"
        path.write_bytes(data)
        return path

    return write


@pytest.fixture
def uploads(tmp_path: Path) -> Uploads:
    return Uploads(tmp_path / "uploads")


def ask(**wish: Any) -> list[Request]:
    return requests_of(Wish(**wish), OFFERS, BOUNDS)


def test_names_become_the_servers_own_paths() -> None:
    [request] = ask(
        loras={"style": 0.5},
        control="edges",
        control_picture=Path("/up/a.png"),
        adapter="looks",
        adapter_pictures=(Path("/up/b.png"),),
    )
    assert request.loras[0].weights == "/runs/style" and request.loras[0].weight == 0.5
    assert (request.controls[0].weights, request.controls[0].image) == ("/runs/edges", "/up/a.png")
    assert request.image_prompt.weights == "/runs/looks" and request.image_prompt.images == ("/up/b.png",)


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        ({"task": "preview"}, "Task: expected one of"),
        ({"task": "image_to_image"}, "upload the one to start from"),
        ({"task": "inpaint", "picture": Path("a")}, "paint over"),
        ({"control": "edges"}, "upload a picture for it to look at"),
        ({"control": "gap", "control_picture": Path("a")}, "gap is for Inpaint"),
        ({"control": "/runs/edges", "control_picture": Path("a")}, "not offered here; there is: edges, gap"),
        (
            {"control": "edges", "control_picture": Path("a"), "control_start": 0.5, "control_end": 0.5},
            "To (0.5) has to be more than From (0.5)",
        ),
        ({"adapter": "../looks", "adapter_pictures": (Path("a"),)}, "not offered here"),
        ({"task": "image_to_image", "picture": Path("a"), "strength": 2}, "Strength: expected 0.01 to 1"),
        ({"steps": float("nan")}, "Steps: expected 1 to 50, found nan"),
        ({"steps": True}, "Steps: expected 1 to 50"),
        ({"prompt": "a" * 101}, "101 letters; at most 100"),
        ({"size": True, "width_px": 129, "height_px": 64}, "Width: expected 16 to 128, found 129"),
    ],
)
def test_what_cannot_be_had_is_refused(wish: dict[str, Any], words: str) -> None:
    with pytest.raises(Refused) as caught:
        ask(**wish)
    assert words in str(caught.value)


def test_seeds_count_up_and_are_new_each_time_where_none_is_typed() -> None:
    assert [request.seed for request in ask(seed=" 7 ", num_images=3)] == [7, 8, 9]
    assert ask()[0].seed != ask()[0].seed
    with pytest.raises(Refused, match="Seed"):
        ask(seed=str(2**63 - 2), num_images=4)


def test_letters_that_are_none_are_left_out() -> None:
    assert ask(prompt="a \0red\ud800 circle ")[0].prompt == "a red circle"


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format=kind, **options)
    return stream.getvalue()


def test_uploads_are_written_anew(uploads: Uploads, sent: Callable[[bytes], Path]) -> None:
    data = noise_png()
    path = uploads.take(sent(data + b"<?php evil ?>"), "Picture")
    assert b"evil" not in path.read_bytes()
    assert Image.open(path).tobytes() == Image.open(io.BytesIO(data)).tobytes()
    assert uploads.take(sent(data), "Picture") == path  # the same picture lies there once


def test_uploads_are_upright_and_opaque(uploads: Uploads, sent: Callable[[bytes], Path]) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    turned = uploads.take(sent(saved(Image.new("RGB", (40, 20)), "JPEG", exif=exif)), "Picture")
    assert Image.open(turned).size == (20, 40)
    clear = uploads.take(sent(saved(Image.new("RGBA", (8, 8), (0, 0, 0, 0)), "PNG")), "Picture")
    assert Image.open(clear).getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("kind", ["PPM", "ICO", "EPS", "PDF"])
def test_other_formats_are_not_even_tried(uploads: Uploads, sent: Callable[[bytes], Path], kind: str) -> None:
    with pytest.raises(Refused, match="take a PNG, JPEG or WebP file"):
        uploads.take(sent(saved(Image.new("RGB", (32, 32)), kind)), "Picture")


def test_a_picture_of_too_many_pixels_is_not_decoded(uploads: Uploads, sent: Callable[[bytes], Path]) -> None:
    with pytest.raises(Refused, match="10000 x 10000 pixels; at most 50 million"):
        uploads.take(sent(saved(Image.new("1", (10_000, 10_000)), "PNG")), "Picture")


def test_strokes_become_a_mask_of_the_pictures_size(uploads: Uploads, sent: Callable[[bytes], Path]) -> None:
    strokes = Image.new("RGBA", (64, 48))
    strokes.paste((255, 255, 255, 234), (10, 10, 20, 20))
    picture, mask = uploads.take_painted(sent(noise_png()), sent(saved(strokes, "PNG")), "Picture")
    levels = Image.open(mask)
    assert levels.size == Image.open(picture).size and levels.getbbox() == (10, 10, 20, 20)
    with pytest.raises(Refused, match="paint over"):
        clear = sent(saved(Image.new("RGBA", (64, 48)), "PNG"))
        uploads.take_painted(sent(noise_png()), clear, "Picture")


def test_what_a_painter_is_sent_besides_uploads_is_not_kept() -> None:
    with gr.Blocks():
        field = painter("Picture")
    with pytest.raises(Refused):
        field.accept_blobs(SimpleNamespace(data={}, files=[]))  # type: ignore[arg-type]
    assert field.preprocess(None) is None


def made(**request: Any) -> dict[str, Any]:
    """The facts of a picture that this request would make."""
    whole = {"width_px": 64, "height_px": 64, "stage_c": StageSettings(5, 2.0), **request}
    origin = Origin("run", Weights(), True, "fp32", "cpu", {"kaskade": "1"}, {})
    return facts_of(Request(**whole), origin)


def test_settings_are_remembered() -> None:
    facts = made(
        prompt="a cat",
        seed=2**62,
        loras=[{"weights": "elsewhere/style", "weight": 0.5}, "gone"],
        controls=[{"weights": "/runs/edges", "image": "/secret.png", "scale": 0.7}],
    )
    found = remembered(facts, OFFERS, BOUNDS)
    assert found.fields["prompt"] == "a cat" and found.fields["seed"] == str(2**62)
    assert found.fields["steps"] == 5 and found.fields["guidance"] == 2.0
    assert found.fields["loras"] == {"style": 0.5} and found.fields["control"] == "edges"
    assert "“gone” is not offered here and was left out" in found.notes
    assert "/secret.png" not in str(found)


@pytest.mark.parametrize(
    "facts",
    [
        {},
        {"prompt": 5},
        {"stage_c": {"steps": "many"}},
        {"loras": {"a": 1}},
        {"task": "preview"},
        {"seed": -1},
    ],
)
def test_what_is_not_ours_is_said(facts: dict[str, Any]) -> None:
    with pytest.raises(Refused):
        remembered(made() | facts if facts else {}, OFFERS, BOUNDS)


def test_a_picture_without_settings_is_said(tmp_path: Path) -> None:
    for name, data in (("a.png", noise_png()), ("b.png", b"no picture")):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(Refused, match="carries no settings of ours"):
            facts_in(tmp_path / name)


def test_adapters_are_found_beneath_the_run(tiny_runs: Path, tmp_path: Path) -> None:
    runs = write_runs(tiny_runs, tmp_path / "runs")
    found = find_offers(AppSettings(run=str(runs)))
    assert sorted(found.loras) == ["lora_attention", "lora_b", "lora_c", "lora_text"]
    assert found.filters == {name: name for name in ("canny", "inpainting", "super_resolution")}
    assert found.ip_adapters == {"ip_adapter": str(runs / "ip_adapter")}
    chosen = AppSettings(run=str(runs), loras=[str(runs / "lora_b")], controlnets=[])
    assert find_offers(chosen).loras == {"lora_b": str(runs / "lora_b")}
    assert find_offers(chosen).controlnets == {}
    with pytest.raises(ValueError, match="loras: .*nowhere"):
        find_offers(AppSettings(run=str(runs), loras=["nowhere"]))
