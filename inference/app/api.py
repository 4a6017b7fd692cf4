"""The page's HTTP API: text to image with plain parameters, and the names of what is offered."""

import secrets
from collections.abc import Mapping
from typing import Any

import gradio as gr

from inference.app.offers import Offers
from inference.app.remembered import facts_in
from inference.app.settings import Bounds
from inference.app.studio import Studio
from inference.app.wishes import Wish, requests_of
from inference.app.words import in_words

KEPT = ("task", "prompt", "negative_prompt", "seed", "width_px", "height_px", "stage_c", "stage_b")


def add_api(studio: Studio, offers: Offers, bounds: Bounds) -> None:
    """Endpoints `text_to_image` and `offers` of the page that is being built."""

    def text_to_image(
        prompt: str, negative_prompt: str, seed: str, width_px: float, height_px: float, num_images: float,
        steps: float, guidance: float, decoder_steps: float, decoder_guidance: float, loras: str,
        request: gr.Request,
    ) -> Any:  # fmt: skip
        wish = Wish(
            prompt=prompt,
            negative_prompt=negative_prompt or "",
            seed=seed,
            num_images=1 if num_images is None else num_images,
            size=bool(width_px or height_px),
            width_px=width_px or bounds.own_side_px,
            height_px=height_px or bounds.own_side_px,
            steps=steps,
            guidance=guidance,
            decoder_steps=decoder_steps,
            decoder_guidance=decoder_guidance,
            loras=weights_of(loras or ""),
        )
        try:
            requests = requests_of(wish, offers, bounds)
            paths = [*studio.draw(requests, request.session_hash or secrets.token_hex())][-1].paths  # type: ignore[union-attr]
        except Exception as error:
            raise gr.Error(str(in_words(error)) or "stopped", print_exception=False) from None
        made = [{name: facts_in(path)[name] for name in KEPT} for path in paths]
        return [str(path) for path in paths], made

    def offered() -> Mapping[str, Any]:
        names = {"loras": [*offers.loras], "controlnets": [*offers.controlnets]}
        limits = {"most_side_px": bounds.most_side_px, "most_steps": bounds.most_steps}
        return {**names, **limits, "most_images": bounds.most_images, "own_side_px": bounds.own_side_px}

    with gr.Column(visible=False):
        inputs = [
            gr.Textbox(label="prompt"),
            gr.Textbox("", label="negative_prompt"),
            gr.Textbox("", label="seed"),
            *(gr.Number(None, label=name) for name in ("width_px", "height_px")),
            gr.Number(1, label="num_images"),
            *(gr.Number(None, label=name) for name in ("steps", "guidance")),
            *(gr.Number(None, label=name) for name in ("decoder_steps", "decoder_guidance")),
            gr.Textbox("", label="loras"),
        ]
        outputs = [gr.File(label="pictures", file_count="multiple"), gr.JSON(label="settings")]
        button = gr.Button()
        button.click(
            text_to_image,
            inputs,
            outputs,
            api_name="text_to_image",
            concurrency_limit=None,
            api_description="Draw pictures of a prompt; empty fields leave the choice to the model.",
        )
        gr.Button().click(offered, None, gr.JSON(label="offers"), api_name="offers")


def weights_of(words: str) -> dict[str, float]:
    """`name:0.8, other` as weights by name; what has no weight counts 1. Refused where it cannot be read."""
    weights = {}
    for word in filter(None, map(str.strip, words.split(","))):
        name, sign, weight = word.rpartition(":")
        try:
            weights[name if sign else word] = float(weight) if sign else 1.0
        except ValueError:
            raise gr.Error(
                f"loras: expected name:weight, found “{word[:80]}”", print_exception=False
            ) from None
    return weights
