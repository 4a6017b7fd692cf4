"""The page's HTTP API: text to image with plain parameters, and the names of what is offered."""

import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from inference.app.events import Done
from inference.app.offers import Offers
from inference.app.remembered import facts_in
from inference.app.settings import Bounds
from inference.app.studio import Studio
from inference.app.wishes import Wish, requests_of
from inference.app.words import Refused, in_words

KEPT = ("task", "prompt", "negative_prompt", "seed", "width_px", "height_px", "stage_c", "stage_b")
BOUNDS = ("own_side_px", "most_side_px", "most_steps", "most_images", "most_letters")


class Api:
    """The endpoints of a studio."""

    def __init__(self, studio: Studio, offers: Offers, bounds: Bounds) -> None:
        self.studio, self.offers, self.bounds = studio, offers, bounds

    def text_to_image(
        self, prompt: str, negative_prompt: str, seed: str, width_px: float, height_px: float,
        num_images: float, steps: float, guidance: float, decoder_steps: float, decoder_guidance: float,
        loras: str, request: gr.Request,
    ) -> Iterator[tuple[list[str], list[dict[str, Any]]]]:  # fmt: skip
        """Draw pictures: their files, and how they were made; until then, at every event, neither.

        It is at what is yielded that gradio looks whether somebody still listens: if not, it closes this
        generator, and the drawing stops.
        """
        try:
            wish = Wish(
                prompt=prompt,
                negative_prompt=negative_prompt or "",
                seed=seed,
                num_images=num_images or 1,
                size=bool(width_px or height_px),
                width_px=width_px or self.bounds.own_side_px,
                height_px=height_px or self.bounds.own_side_px,
                steps=steps or None,
                guidance=guidance or None,
                decoder_steps=decoder_steps or None,
                decoder_guidance=decoder_guidance or None,
                loras=weights_of(loras or ""),
            )
            requests = requests_of(wish, self.offers, self.bounds)
            for event in self.studio.draw(requests, request.session_hash or secrets.token_hex()):
                yield answer(event.paths) if isinstance(event, Done) else ([], [])
        except Exception as error:
            raise gr.Error(str(in_words(error)) or "stopped", print_exception=False) from None

    def offered(self) -> dict[str, Any]:
        """Names of adapters, and bounds."""
        bounds = {name: getattr(self.bounds, name) for name in BOUNDS}
        return {"loras": [*self.offers.loras], "controlnets": [*self.offers.controlnets], **bounds}


def add_api(api: Api) -> None:
    """Add the endpoints `text_to_image` and `offers` to the page that is being built."""
    with gr.Column(visible=False):
        inputs = [
            gr.Textbox(label="prompt"),
            gr.Textbox("", label="negative_prompt"),
            gr.Textbox("", label="seed"),
            *(gr.Number(0, label=name) for name in ("width_px", "height_px")),
            gr.Number(1, label="num_images"),
            *(gr.Number(0, label=name) for name in ("steps", "guidance")),
            *(gr.Number(0, label=name) for name in ("decoder_steps", "decoder_guidance")),
            gr.Textbox("", label="loras"),
        ]
        outputs = [gr.File(label="pictures", file_count="multiple"), gr.JSON(label="settings")]
        gr.Button().click(
            api.text_to_image,
            inputs,
            outputs,
            api_name="text_to_image",
            concurrency_limit=None,
            api_description="Draw pictures of a prompt; what is 0 or empty is left to the model.",
        )
        gr.Button().click(api.offered, None, gr.JSON(label="offers"), api_name="offers")


def answer(paths: Sequence[Path]) -> tuple[list[str], list[dict[str, Any]]]:
    """Finished pictures, and of each how it was made."""
    return [str(path) for path in paths], [{name: facts_in(path)[name] for name in KEPT} for path in paths]


def weights_of(words: str) -> dict[str, float]:
    """`name:0.8, other` as weights by name; what has no weight counts 1. Refused where it cannot be read."""
    weights = {}
    for word in filter(None, map(str.strip, words.split(","))):
        name, sign, weight = word.rpartition(":")
        try:
            weights[name if sign else word] = float(weight) if sign else 1.0
        except ValueError:
            raise Refused(f"loras: expected name:weight, found “{word[:80]}”") from None
    return weights
