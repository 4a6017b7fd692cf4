"""Stages in few bits: near to the full ones, small, and with everything that goes beside them."""

import math
import re
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from inference import Cascade
from inference.config import Config
from inference.pictures import write_picture
from inference.reading import Keeping, per_network
from inference.recreate import recreate
from modules import StageC
from modules.adapters.eight_bit import EightBitLinear
from modules.adapters.four_bit import FourBitLinear
from modules.adapters.quantised import size_bytes
from modules.weights import save_network
from tests.unit.inference.test_inference_pipeline import FAST, pixels

LAYERS = {"nf4": FourBitLinear, "int8": EightBitLinear}


def latents(cascade: Cascade) -> dict[str, Tensor]:
    """The last ones of each stage."""
    seen: dict[str, Tensor] = {}
    cascade.generate("a red circle", 1, on_step=lambda step: seen.update({step.stage: step.latents}), **FAST)
    return seen


def psnr(found: Tensor, expected: Tensor) -> float:
    """In decibels, of the range of what is expected."""
    error = (found - expected).square().mean()
    return float(20 * math.log10(float(expected.max() - expected.min())) - 10 * error.log10())


@pytest.mark.parametrize(("kind", "least"), [("nf4", 17), ("int8", 45)])
def test_latents_are_near_to_those_of_full_weights(
    tiny_runs: Path, cascade: Cascade, kind: str, least: float
) -> None:
    full = latents(cascade)
    for stage in ("stage_c", "stage_b"):  # one at a time: Stage B starts from what Stage C drew
        lean = Cascade.load(str(tiny_runs), device="cpu", quantize={stage: kind})
        assert least < psnr(latents(lean)[stage], full[stage]) < 100


@pytest.mark.parametrize(("kind", "most_bits"), [("nf4", 4.6), ("int8", 8.3)])
def test_bits_of_a_weight(tmp_path: Path, kind: Any, most_bits: float) -> None:
    """Of the linear layers' weights: biases and convolutions are held in full."""
    network = StageC(c_hidden=[128, 128], nhead=[2, 2], blocks=[[1, 1], [1, 1]], c_cond=128)
    linear = {name for name, module in network.named_modules() if isinstance(module, torch.nn.Linear)}
    counts = {name: tensor.numel() for name, tensor in network.state_dict().items()}
    weights = sum(n for key, n in counts.items() if key[:-7] in linear and key.endswith(".weight"))
    weights += sum(n for key, n in counts.items() if key.endswith("in_proj_weight"))
    save_network(tmp_path / "c.safetensors", network, "stage_c", {})
    keeping = Keeping(torch.device("cpu"), torch.bfloat16, quantize={"stage_c": kind})
    made, offloaded = keeping.read("stage_c", str(tmp_path / "c.safetensors"))
    assert offloaded is None
    assert not any(isinstance(module, torch.nn.Linear) for module in made.modules())
    assert {t.dtype for t in made.parameters()} == {torch.bfloat16}
    codes = size_bytes(made) - 2 * sum(t.numel() for t in made.parameters())
    assert kind == "int8" or codes < most_bits / 8 * weights + 64 * 200  # a table of 16 levels for each layer
    assert codes > (most_bits - 0.3) / 8 * weights * 0.97
    if kind == "int8":
        assert codes < most_bits / 8 * weights


@pytest.mark.parametrize("offload", ["stage", "block"])
@pytest.mark.parametrize("kind", ["nf4", "int8"])
def test_few_bits_go_with_adapters_and_offloading(
    tiny_runs: Path, adapters: Path, photo: str, kind: str, offload: Any
) -> None:
    quantize = {"stage_c": kind, "stage_b": kind, "text_encoder": kind}
    encoder = {"image_encoder": str(tiny_runs / "image_encoder")}
    settings: dict[str, Any] = {
        "loras": [str(adapters / "lora_c"), str(adapters / "lora_text")],
        "controls": [{"weights": str(adapters / "canny"), "image": photo}],
        "image_prompt": {"weights": str(adapters / "ip_adapter"), "images": [photo]},
        **FAST,
    }
    there = Cascade.load(str(tiny_runs), device="cpu", quantize=quantize, **encoder)
    away = Cascade.load(str(tiny_runs), device="cpu", quantize=quantize, offload=offload, **encoder)
    for cascade in (there, away):
        for name in ("stage_c", "stage_b"):
            layers = cascade.networks.peek(name).modules()
            assert any(isinstance(layer, LAYERS[kind]) for layer in layers)
    plain, with_all, again = (
        pixels(there.generate("a", 1, **given)[0]) for given in (FAST, settings, settings)
    )
    assert np.abs(plain - with_all).max() > 1
    assert np.array_equal(with_all, again)
    assert np.array_equal(with_all, pixels(away.generate("a", 1, **settings)[0]))
    assert np.array_equal(plain, pixels(away.generate("a", 1, **FAST)[0]))


@pytest.mark.parametrize("kind", ["nf4", "int8"])
def test_few_bits_compute_in_fp16_too(tiny_runs: Path, kind: Any) -> None:
    full = Cascade.load(str(tiny_runs), device="cpu", quantize=kind)
    half = Cascade.load(str(tiny_runs), device="cpu", quantize=kind, dtype="fp16", offload="block")
    expected, found = latents(full), latents(half)
    assert all(psnr(found[stage], expected[stage]) > 30 for stage in expected)


def test_a_picture_is_made_again_in_the_same_bits_and_tiles(tiny_runs: Path, tmp_path: Path) -> None:
    lean = Cascade.load(str(tiny_runs), device="cpu", quantize="int8", tile_px=256)
    [picture] = lean.generate("a", 1, width_px=300, height_px=40, **FAST)
    assert picture.facts["quantize"] == {"stage_c": "int8", "stage_b": "int8"}
    assert picture.facts["tile_px"] == 256
    path = write_picture(picture, tmp_path)
    again, verdict = recreate(Config(recreate=str(path)))
    assert verdict == "the same pixels"
    assert again.facts == picture.facts
    verdict = recreate(Config(recreate=str(path), quantize={"stage_c": "nf4"}))[1]
    assert verdict.endswith("no longer the same: quantize")


def test_large_pictures_are_decoded_in_tiles(tiny_runs: Path) -> None:
    size = {"width_px": 320, "height_px": 64}
    whole, tiled = (Cascade.load(str(tiny_runs), device="cpu", tile_px=tile_px) for tile_px in (None, 256))
    shapes: list[tuple[int, ...]] = []
    blocks = tiled.networks.peek("stage_a").up_blocks
    blocks.register_forward_pre_hook(lambda _, inputs: shapes.append(tuple(inputs[0].shape)))
    expected, drawn = (pixels(made.generate("a", 1, **size, **FAST)[0]) for made in (whole, tiled))
    assert len(shapes) == 2 and max(shape[-1] for shape in shapes) <= 64
    assert np.abs(expected - drawn).max() <= 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"quantize": {"stage_d": "nf4"}}, "quantize: found 'stage_d'; did you mean 'stage_c'?"),
        ({"quantize": {"stage_c": "nf3"}}, "quantize.stage_c: found 'nf3'; did you mean 'nf4'?"),
        ({"quantize": "fp4"}, "quantize.stage_c: found 'fp4'; did you mean 'nf4'?"),
        ({"offload": "blocks"}, "offload: found 'blocks'; did you mean 'block'?"),
        (
            {"offload": "block", "compile": True},
            "compile: compiled blocks cannot be offloaded by block; set offload=stage",
        ),
        ({"offload": True}, "offload: found True; expected one of: block, none, stage"),
    ],
)
def test_what_does_not_exist_is_told(tiny_runs: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match="^" + re.escape(message) + "$"):
        Cascade.load(str(tiny_runs), device="cpu", **settings)


def test_without_bitsandbytes_there_is_int8(tiny_runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(ValueError, match=r"^quantize: .*bitsandbytes: pip install bitsandbytes$"):
        Cascade.load(str(tiny_runs), device="cpu", quantize="nf4")
    Cascade.load(str(tiny_runs), device="cpu", quantize="int8").generate("a", **FAST)


def test_what_was_chosen_is_one_line(tiny_runs: Path) -> None:
    load = partial(Cascade.load, str(tiny_runs), device="cpu")
    assert load().described() == "cpu, float32; Stage A in tiles of 1024 px"
    lean = load(dtype="bf16", quantize={"stage_c": "int8", "stage_b": None}, offload="block", tile_px=None)
    assert lean.described() == (
        "cpu, bfloat16; stage_c in int8; offload by block: weights that are not in use wait in their files"
    )
    assert per_network("nf4") == {"stage_c": "nf4", "stage_b": "nf4"}
    assert per_network(None) == {}
