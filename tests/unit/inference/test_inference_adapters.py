"""Drawing with adapters: each counts, they work together, and without them nothing is left of them."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from inference import Cascade, Picture, Request, StageSettings, Step, write_picture
from inference.config import Config
from inference.recreate import recreate
from inference.sources import to_pixels
from modules.adapters.filters.canny import Canny
from modules.adapters.tokens import TrainedTokens
from modules.encoders import TextEncoder
from modules.pictures import resized, to_image
from modules.schema import from_plain
from modules.weights.lora_files import read_lora, write_lora
from tests.adapter_files import LCM_SAMPLING, NEW_TOKEN
from tests.unit.inference.test_inference_pipeline import FAST, differ, pixels


def same(a: Picture, b: Picture) -> bool:
    return np.array_equal(pixels(a), pixels(b))


@pytest.fixture
def everything(adapters: Path, photo: str, other_photo: str, mask: str) -> dict[str, Any]:
    """An inpainting with all kinds of adapters at once."""
    return {
        "task": "inpaint",
        "image": photo,
        "mask": mask,
        "loras": [{"weights": str(adapters / "lora_c"), "weight": 0.7}, str(adapters / "lora_b")],
        "controls": [
            {"weights": str(adapters / "inpainting")},
            {"weights": str(adapters / "canny"), "image": other_photo, "scale": 0.5, "end": 0.5},
        ],
        "image_prompt": {"weights": str(adapters / "ip_adapter"), "images": [other_photo]},
        "stage_b": FAST["stage_b"],
    }


@pytest.mark.parametrize("kind", ["lora_c", "lora_b", "lora_text", "canny", "ip_adapter"])
def test_an_adapter_counts_and_leaves_nothing_behind(
    cascade: Cascade, adapters: Path, photo: str, kind: str
) -> None:
    weights = str(adapters / kind)
    setting: dict[str, Any] = {
        "canny": {"controls": [{"weights": weights, "image": photo}]},
        "ip_adapter": {"image_prompt": {"weights": weights, "images": [photo]}},
    }.get(kind, {"loras": [weights]})

    def draw(**settings: Any) -> Picture:
        return cascade.generate("a red circle", 3, **FAST, **settings)[0]

    before, with_it, after = draw(), draw(**setting), draw()
    assert differ(before, with_it)
    assert same(before, after)
    assert same(with_it, draw(**setting))


@pytest.mark.parametrize(
    "off",
    [
        {"loras": [{"weights": "lora_c", "weight": 0.0}, {"weights": "lora_text", "weight": 0.0}]},
        {"controls": [{"weights": "canny", "image": "photo", "scale": 0.0}]},
        {"image_prompt": {"weights": "ip_adapter", "images": ["photo"], "scale": 0.0}},
    ],
)
def test_an_adapter_that_counts_nothing_changes_no_bit(
    cascade: Cascade, adapters: Path, photo: str, off: dict[str, Any]
) -> None:
    def named(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: named(item) for key, item in value.items()}
        if isinstance(value, list):
            return [named(item) for item in value]
        return photo if value == "photo" else str(adapters / value) if isinstance(value, str) else value

    without, switched_off = (cascade.generate("a", 1, **FAST, **setting)[0] for setting in ({}, named(off)))
    assert same(without, switched_off)


def test_loras_add_up_and_their_weights_count(cascade: Cascade, adapters: Path) -> None:
    c, b = str(adapters / "lora_c"), str(adapters / "lora_b")
    drawn = [
        cascade.generate("a", 1, **FAST, loras=loras)[0]
        for loras in ([c], [b], [c, b], [{"weights": c, "weight": 0.5}])
    ]
    assert all(differ(first, second) for i, first in enumerate(drawn) for second in drawn[:i])


@pytest.mark.parametrize("stage", ["stage_c", "stage_b"])
def test_trained_tokens_are_known_only_with_their_lora(cascade: Cascade, adapters: Path, stage: str) -> None:
    """Also to the other stage's text encoder, where it is of the same kind."""

    def tokens(**settings: Any) -> int:
        seen: list[int] = []
        encoder = cascade.networks.peek_encoder("text_encoder", stage)
        handle = encoder.token_table.register_forward_hook(
            lambda _, inputs, __: seen.append(int((inputs[0][0] < encoder.model.config.vocab_size).sum()))
        )
        cascade.generate(f"a {NEW_TOKEN}", 1, **FAST, **settings)
        handle.remove()
        return seen[0]

    assert tokens() == tokens() != tokens(loras=[str(adapters / "lora_c")])


def test_an_official_file_is_told_its_tokens(
    cascade: Cascade, tiny_runs: Path, adapters: Path, tmp_path: Path
) -> None:
    """Its layers have numbers and its tokens are additions to rows, without their texts."""
    encoder = TextEncoder(source=str(tiny_runs / "stage_c" / "text_encoder"))
    new = {NEW_TOKEN: "circle|square"}
    state = read_lora(adapters / "lora_attention")
    state.rows.update(TrainedTokens.from_vectors(state.tokens).rows(encoder, new))
    state.tokens.clear()
    write_lora(tmp_path / "official.safetensors", state, "official")
    official = {"weights": str(tmp_path / "official.safetensors"), "tokens": new}
    ours, theirs = (
        cascade.generate(f"a {NEW_TOKEN}", 1, **FAST, loras=[lora])[0]
        for lora in (str(adapters / "lora_attention"), official)
    )
    assert not differ(ours, theirs)
    assert differ(ours, cascade.generate(f"a {NEW_TOKEN}", 1, **FAST)[0])
    away = Cascade.load(str(tiny_runs), device="cpu", offload="stage")
    assert same(theirs, away.generate(f"a {NEW_TOKEN}", 1, **FAST, loras=[official])[0])


def test_controls_count_in_their_share_of_the_steps(cascade: Cascade, adapters: Path, photo: str) -> None:
    def latents(**share: float) -> list[torch.Tensor]:
        seen: list[Step] = []
        control = {"weights": str(adapters / "canny"), "image": photo, **share}
        settings = {"stage_c": StageSettings(steps=4)}
        cascade.generate("a", 1, task="preview", controls=[control], on_step=seen.append, **settings)
        return [step.latents for step in seen]

    plain, early, late = latents(scale=0.0), latents(end=0.5), latents(start=0.5)
    assert [torch.equal(a, b) for a, b in zip(plain, late, strict=True)] == [True, True, False, False]
    assert [torch.equal(a, b) for a, b in zip(early, latents(), strict=True)] == [True, True, False, False]
    assert not torch.equal(plain[0], early[0])


def test_a_ready_made_control_is_what_the_filter_would_have_made(
    cascade: Cascade, adapters: Path, tmp_path: Path
) -> None:
    box = Image.new("RGB", (32, 32), "black")
    box.paste("white", (8, 8, 24, 24))
    box.save(tmp_path / "box.png")
    weights = str(adapters / "canny")
    # Stage C draws 3 x 3 latents, for which the ControlNet sees 24 x 24 pixels.
    edges = Canny()(resized(to_pixels(box)[None], 24, 24), [])
    to_image(edges[0].expand(3, -1, -1)).save(tmp_path / "edges.png")
    drawn = [
        cascade.generate("a", 1, **FAST, controls=[{"weights": weights, **picture}])[0]
        for picture in (
            {"image": str(tmp_path / "box.png")},
            {"image": str(tmp_path / "edges.png"), "raw": True},
        )
    ]
    assert same(*drawn)


@pytest.mark.parametrize("task", ["image_variation", "image_to_image", "super_resolution"])
def test_a_control_without_a_picture_looks_at_the_requests(
    cascade: Cascade, adapters: Path, photo: str, task: str
) -> None:
    canny = {"weights": str(adapters / "canny")}
    drawn = [
        cascade.generate("a", 1, task=task, image=photo, controls=[control], **FAST)[0]
        for control in (canny, {**canny, "image": photo})
    ]
    assert not differ(*drawn)


def test_several_pictures_make_one_image_prompt(
    cascade: Cascade, adapters: Path, photo: str, other_photo: str
) -> None:
    weights = str(adapters / "ip_adapter")
    drawn = [
        cascade.generate("a", 1, **FAST, image_prompt={"weights": weights, "images": images})[0]
        for images in ([photo], [other_photo], [photo, other_photo])
    ]
    assert differ(drawn[0], drawn[1])
    assert differ(drawn[0], drawn[2])


def test_pictures_of_adapters_may_differ_within_a_batch(
    cascade: Cascade, adapters: Path, photo: str, other_photo: str
) -> None:
    def settings(path: str) -> dict[str, Any]:
        return {
            "controls": [{"weights": str(adapters / "canny"), "image": path}],
            "image_prompt": {"weights": str(adapters / "ip_adapter"), "images": [path]},
        }

    rows = [settings(photo), settings(other_photo)]
    together = {name: [row[name] for row in rows] for name in rows[0]}
    batch = cascade.generate(["a", "red"], [1, 2], **together, **FAST)
    assert [picture.facts["batch"]["rows"] for picture in batch] == [2, 2]
    for picture, row, prompt, seed in zip(batch, rows, ["a", "red"], [1, 2], strict=True):
        assert not differ(picture, cascade.generate(prompt, seed, **row, **FAST)[0])


def test_different_adapters_are_batched_apart(cascade: Cascade, adapters: Path, photo: str) -> None:
    lora, half = str(adapters / "lora_c"), {"weights": str(adapters / "lora_c"), "weight": 0.5}
    canny = {"weights": str(adapters / "canny"), "image": photo}
    differently = [{}, {"loras": [lora]}, {"loras": [half]}, {"controls": [canny]}]
    requests = [Request(seed=i, **settings) for i, settings in enumerate(differently)]
    assert [len(batch) for batch in cascade.batches([*requests, requests[-1]], 4)] == [1, 1, 1, 2]


def test_the_compressor_that_filters_may_look_through_is_among_the_facts(
    cascade: Cascade, adapters: Path, photo: str
) -> None:
    fingerprints = cascade.stages.adapters.fingerprints
    control = {"weights": str(adapters / "super_resolution"), "image": photo}
    assert set(fingerprints(Request(controls=[control]))) == {"controls[0]", "semantic_compressor"}
    assert not fingerprints(Request())


def test_everything_together(
    cascade: Cascade, tiny_runs: Path, adapters: Path, everything: dict[str, Any], tmp_path: Path
) -> None:
    """LoRAs with a token, two ControlNets, an image prompt and an inpainting, in the LCM's four steps."""
    steps: list[Step] = []
    fast = Cascade.load(
        str(tiny_runs),
        device="cpu",
        stage_c=str(adapters / "lcm"),
        image_encoder=str(tiny_runs / "image_encoder"),
    )
    plain = fast.generate(f"a {NEW_TOKEN}", 1, stage_b=FAST["stage_b"])[0]
    [picture] = fast.generate(f"a {NEW_TOKEN}", 1, on_step=steps.append, **everything)
    assert [step.stage for step in steps] == ["stage_c"] * 4 + ["stage_b"] * 2
    assert picture.facts["stage_c"] == LCM_SAMPLING
    assert set(picture.facts["fingerprints"]) >= {"loras[0]", "loras[1]", "controls[1]", "image_prompt"}
    for name in ("loras", "controls", "image_prompt"):
        part = everything.pop(name)
        assert differ(picture, fast.generate(f"a {NEW_TOKEN}", 1, **everything)[0]), name
        everything[name] = part
    assert same(plain, fast.generate(f"a {NEW_TOKEN}", 1, stage_b=FAST["stage_b"])[0])
    path = write_picture(picture, tmp_path)
    again, verdict = recreate(Config(recreate=str(path)))
    assert verdict == "the same pixels"
    assert again.facts == picture.facts


def test_an_interrupted_drawing_leaves_nothing_behind(cascade: Cascade, everything: dict[str, Any]) -> None:
    def stop(step: Step) -> None:
        raise KeyboardInterrupt

    before = cascade.generate("a", 1, **FAST)[0]
    with pytest.raises(KeyboardInterrupt):
        cascade.generate("a", 1, on_step=stop, **{**everything, **FAST})
    assert same(before, cascade.generate("a", 1, **FAST)[0])


def test_a_changed_picture_of_an_adapter_is_told(
    cascade: Cascade, everything: dict[str, Any], other_photo: str, tmp_path: Path
) -> None:
    everything["stage_c"] = FAST["stage_c"]
    path = write_picture(cascade.generate("a", 1, **everything)[0], tmp_path)
    Image.new("RGB", (64, 48), "green").save(other_photo)
    assert recreate(Config(recreate=str(path)))[1].endswith("no longer the same: pictures_sha256")


def test_bf16_and_offload_work_with_all_adapters(
    tiny_runs: Path, cascade: Cascade, everything: dict[str, Any]
) -> None:
    low = Cascade.load(
        str(tiny_runs),
        device="cpu",
        dtype="bf16",
        offload="stage",
        image_encoder=str(tiny_runs / "image_encoder"),
    )
    settings = {**everything, "stage_c": FAST["stage_c"]}
    exact, drawn = (made.generate("a red circle", 2, **settings)[0] for made in (cascade, low))
    assert np.abs(pixels(exact) - pixels(drawn)).mean() < 8
    before, after = (low.generate("a", 1, **FAST)[0] for _ in range(2))
    assert same(before, after)


def test_requests_with_adapters_survive_plain_data(everything: dict[str, Any]) -> None:
    request = Request(**everything)
    assert from_plain(Request, asdict(request)) == request
    assert replace(request, seed=1).loras == request.loras
