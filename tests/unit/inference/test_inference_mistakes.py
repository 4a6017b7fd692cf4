"""What is wrong about adapters, masks and margins is one clear line, said before anything is drawn."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from inference import Cascade
from modules import build
from modules.adapters.lora import LoRA
from tests.adapter_files import SMALL_BACKBONE, save
from tests.conftest import NETWORKS

# {adapters}, {photo}, … stand for paths.
MISTAKES: list[tuple[dict[str, Any], str]] = [
    ({"loras": ["{tmp}/none"]}, r"loras\[0\]: .*/none"),
    ({"loras": [{"weight": 1.0}]}, r"loras\[0\]\.weights: missing"),
    ({"loras": [{"weights": "x", "wieght": 1.0}]}, r"loras\[0\]\.wieght: unknown key; did you mean 'weight'"),
    ({"loras": [{"weights": "x", "weight": float("nan")}]}, r"loras\[0\]\.weight: expected a finite number"),
    ({"image_prompt": {"scale": float("inf")}}, r"image_prompt\.scale: expected a finite number"),
    ({"loras": "{adapters}/lora_c"}, r"loras: expected a list of settings"),
    ({"loras": ["{adapters}/lora_c", "{adapters}/lora_c"]}, r"loras\[1\]: .*lora_c is in the list twice"),
    (
        {"loras": ["{adapters}/lora_b"], "task": "preview"},
        r"loras\[0\]: .* is for stage_b, which does not draw",
    ),
    ({"loras": ["{adapters}/canny"]}, r"loras\[0\]: .*/canny.*no weights of lora"),
    (
        {"loras": ["{adapters}/canny/weights/controlnet.safetensors"]},
        r"loras\[0\]: .*not a LoRA of this family",
    ),
    ({"loras": ["{tmp}/wide"]}, r"loras\[0\]: .*expected factors of a weight \[16, 16\]"),
    ({"controls": [{"weights": "{tmp}/none", "image": "{photo}"}]}, r"controls\[0\]: .*/none"),
    (
        {"controls": ["{adapters}/canny"]},
        r"controls\[0\]: image: missing; the task text_to_image has no picture",
    ),
    (
        {"controls": [{"weights": "{adapters}/canny", "image": "{tmp}/x.png"}]},
        r"controls\[0\]\.image: .*x.png does not",
    ),
    (
        {"controls": [{"weights": "{adapters}/lora_c", "image": "{photo}"}]},
        r"controls\[0\]: .*no weights of controlnet",
    ),
    (
        {"controls": [{"weights": "{tmp}/wide_control", "image": "{photo}"}]},
        r"controls\[0\]: c_proj: expected 16",
    ),
    (
        {"controls": [{"weights": "{tmp}/long_control", "image": "{photo}"}]},
        r"controls\[0\]: proj_blocks: expected numbers",
    ),
    ({"controls": [{"weights": "{tmp}/strange_control", "image": "{photo}"}]}, r"controls\[0\]: .*raw=true"),
    (
        {"controls": [{"weights": "{adapters}/canny", "raw": True}]},
        r"controls\[0\]\.image: missing; raw=true",
    ),
    (
        {"controls": [{"weights": "{adapters}/canny", "start": 0.6, "end": 0.5}]},
        r"controls\[0\]\.end: expected more than",
    ),
    (
        {"controls": [{"weights": "{adapters}/canny", "scale": float("nan")}]},
        r"controls\[0\]\.scale: expected a finite number",
    ),
    (
        {"controls": [{"weights": "{adapters}/canny", "start": -1}]},
        r"controls\[0\]\.start: expected at least 0",
    ),
    (
        {"controls": [{"weights": "{adapters}/inpainting", "image": "{photo}"}]},
        r"controls\[0\]: .* is for inpainting",
    ),
    (
        {"controls": [{"weights": "{adapters}/super_resolution", "image": "{photo}", "raw": True}]},
        r"controls\[0\]: raw: no picture has the 16 channels",
    ),
    (
        {"controls": ["{adapters}/canny"], "task": "reconstruct", "image": "{photo}"},
        r"controls: .*does not draw with Stage C",
    ),
    ({"image_prompt": {"images": ["{photo}"]}}, r"image_prompt\.weights: missing"),
    ({"image_prompt": {"weights": "{adapters}/ip_adapter"}}, r"image_prompt\.images: missing"),
    (
        {"image_prompt": {"weights": "{adapters}/ip_adapter", "images": ["{tmp}/x.png"]}},
        r"image_prompt\.images\[0\]: .*x.png does not exist",
    ),
    (
        {"image_prompt": {"weights": "{adapters}/canny", "images": ["{photo}"]}},
        r"image_prompt: .*no weights of ip_adapter",
    ),
    (
        {"image_prompt": {"weights": "{tmp}/narrow_ip", "images": ["{photo}"]}},
        r"image_prompt: .*made for 4 attention blocks of \[8\] channels",
    ),
    (
        {"image_prompt": {"weights": "{tmp}/wide_ip", "images": ["{photo}"]}},
        r"image_prompt: .*pooled image features: expected shape",
    ),
    (
        {"image_prompt": {"weights": "{tmp}/blind_ip", "images": ["{photo}"]}},
        r"image_prompt: image_encoder: .*set weights.image_encoder",
    ),
    ({"task": "inpaint", "image": "{photo}"}, r"mask: the task inpaint takes a mask; set mask=<path>"),
    ({"task": "inpaint", "mask": "{mask}"}, r"image: the task inpaint takes a picture"),
    ({"task": "inpaint", "image": "{photo}", "mask": "{tmp}/x.png"}, r"mask: .*x.png does not exist"),
    (
        {"task": "inpaint", "image": "{photo}", "mask": "{tmp}/small.png"},
        r"mask: .*small.png is 8 x 8 pixels, the picture 64 x 48",
    ),
    (
        {"task": "inpaint", "image": "{photo}", "mask": "{tmp}/black.png"},
        r"mask: .*black.png is black all over",
    ),
    ({"mask": "{mask}"}, r"mask: the task text_to_image takes no mask"),
    (
        {"task": "outpaint", "image": "{photo}"},
        r"margins: the task outpaint takes margins; set margins.right_px=",
    ),
    (
        {"task": "outpaint", "image": "{photo}", "margins": {"left_px": -1}},
        r"margins\.left_px: expected at least 0",
    ),
    (
        {"task": "outpaint", "image": "{photo}", "margins": {"left_px": 10**9}},
        r"margins\.left_px: expected at most 16384",
    ),
    ({"margins": {"left_px": 1}}, r"margins: the task text_to_image takes no margins"),
    ({"edge_px": -1}, r"edge_px: expected at least 0"),
]


@pytest.fixture
def places(adapters: Path, photo: str, mask: str, tmp_path: Path, tiny_runs: Path) -> dict[str, str]:
    Image.new("L", (8, 8), "white").save(tmp_path / "small.png")
    Image.new("L", (64, 48), "black").save(tmp_path / "black.png")
    control = {"c_in": 1, "backbone": SMALL_BACKBONE}
    for name, config, facts in (
        ("wide_control", {**control, "c_proj": 32, "proj_blocks": [0]}, {"filter": {"name": "canny"}}),
        ("long_control", {**control, "c_proj": 16, "proj_blocks": [9]}, {"filter": {"name": "canny"}}),
        ("strange_control", {**control, "c_in": 7, "c_proj": 16, "proj_blocks": [0]}, {}),
    ):
        save(tmp_path, name, build("controlnet", config), "controlnet", facts)
    encoder = {"image_encoder": str(tiny_runs / "image_encoder")}
    for name, channels, c_image, facts in (
        ("narrow_ip", 8, 12, encoder),
        ("wide_ip", 16, 13, encoder),
        ("blind_ip", 16, 12, {}),
    ):
        config = {"channels": [channels] * 4, "c_image": c_image, "c_tokens": 16}
        save(tmp_path, name, build("ip_adapter", config), "ip_adapter", facts)
    wide = build("stage_c", {**NETWORKS["stage_c"][1], "c_hidden": [32, 32]})
    save(tmp_path, "wide", LoRA.create(wide, {"*.attn.to_*": 2}), "lora", {"base": {"network": "stage_c"}})
    return {"adapters": str(adapters), "photo": photo, "mask": mask, "tmp": str(tmp_path)}


def filled(value: Any, places: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: filled(item, places) for key, item in value.items()}
    if isinstance(value, list):
        return [filled(item, places) for item in value]
    return value.format(**places) if isinstance(value, str) else value


def test_mistakes_are_one_line_before_anything_is_drawn(tiny_runs: Path, places: dict[str, str]) -> None:
    cascade = Cascade.load(str(tiny_runs), device="cpu")
    for settings, message in MISTAKES:
        drawn: list[Any] = []
        with pytest.raises((ValueError, FileNotFoundError), match="^" + message) as error:
            cascade.generate("a", on_step=drawn.append, **filled(settings, places))
        assert "\n" not in str(error.value)
        assert not drawn
