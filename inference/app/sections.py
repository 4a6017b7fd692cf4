"""The folded sections of the form: they serve all tabs."""

from collections.abc import Mapping
from typing import Any

import gradio as gr

from inference.app.fields import picture_field, pictures_field
from inference.app.offers import Offers
from inference.app.settings import Bounds
from inference.app.wishes import LEAST_WEIGHT, MOST_WEIGHT
from inference.sizes import MIN_SIDE_PX

MOST_LORAS = 4  # at once
MOST_GUIDANCE = 15.0  # of the sliders
QUIETLY: Any = {"queue": False, "api_visibility": "private", "show_progress": "hidden"}


class Fields(dict[str, Any]):
    """Fields of the page by name."""

    def put(self, name: str, field: Any) -> Any:
        """Take a field in; returns it."""
        self[name] = field
        return field

    def slider(
        self, name: str, label: str, least: float, most: float, value: Any, step: float, **keywords: Any
    ) -> Any:
        """A slider, taken in."""
        keywords.setdefault("elem_id", name)
        return self.put(name, gr.Slider(least, most, value, step=step, label=label, buttons=[], **keywords))


def size_and_seed(fields: Fields, bounds: Bounds) -> None:
    """How many pictures, of which seed and size."""
    own, most, step = bounds.own_side_px, bounds.most_side_px, bounds.step_px
    with gr.Accordion("Size, number, seed", open=False, elem_id="fold-size"):
        with gr.Row():
            fields.slider("num_images", "Pictures", 1, bounds.most_images, 1, 1)
            fields.put(
                "seed",
                gr.Textbox(label="Seed", placeholder="another one each time", max_lines=1, elem_id="seed"),
            )
        size = fields.put(
            "size",
            gr.Checkbox(False, label="Choose the size", info=f"otherwise the model's own, {own} px"),
        )
        with gr.Row(visible=False) as sides:
            least = max(MIN_SIDE_PX, own // 4)
            fields.slider("width_px", "Width", least, most, own, step)
            fields.slider("height_px", "Height", least, most, own, step)
        size.change(
            lambda on: gr.Row(visible=on),
            size,
            sides,
            **QUIETLY,
        )


def loras(fields: Fields, offers: Offers) -> None:
    """LoRAs, each with a weight."""
    names = list(offers.loras)
    with gr.Accordion("LoRAs", open=False, elem_id="fold-loras"):
        chosen = fields.put(
            "loras",
            gr.Dropdown(
                names, value=[], multiselect=True, max_choices=MOST_LORAS, label="LoRAs", elem_id="loras"
            ),
        )
        sliders = [
            fields.slider(
                f"lora_{i}",
                f"Weight {i + 1}",
                LEAST_WEIGHT,
                MOST_WEIGHT,
                1.0,
                0.05,
                visible=False,
                elem_id=f"lora-{i}",
            )
            for i in range(min(MOST_LORAS, len(names)))
        ]
        chosen.change(
            lora_sliders(len(sliders)),
            chosen,
            sliders,
            **QUIETLY,
        )


def control(fields: Fields, offers: Offers) -> tuple[gr.Button, gr.Image]:
    """A ControlNet; returns the button that asks what it sees, and where that is shown."""
    filters = offers.filters
    choices = [("none", "")] + [
        (f"{name} ({filters[name]})" if filters[name] else name, name) for name in offers.controlnets
    ]
    with gr.Accordion("ControlNet", open=False, elem_id="fold-control"):
        fields.put("control", gr.Dropdown(choices, value="", label="ControlNet", elem_id="control"))
        with gr.Row():
            fields.put(
                "control_picture",
                picture_field("Picture to look at", height=200, placeholder="or the one of the tab"),
            )
            seen = gr.Image(
                label="What it sees",
                height=200,
                interactive=False,
                buttons=[],
                format="png",
                elem_id="seen",
            )
        look = gr.Button("Show what it sees", size="sm")
        fields.slider("control_scale", "ControlNet strength", 0, MOST_WEIGHT, 1.0, 0.05)
        with gr.Row():
            fields.slider("control_start", "From", 0, 1, 0.0, 0.05, info="share of the steps")
            fields.slider("control_end", "To", 0, 1, 1.0, 0.05, info="share of the steps")
    return look, seen


def image_prompt(fields: Fields, offers: Offers) -> None:
    """Pictures beside the prompt."""
    names = list(offers.ip_adapters)
    with gr.Accordion("Image prompt", open=False, elem_id="fold-image-prompt"):
        gr.Markdown("Pictures beside the words: what is drawn takes after them.", elem_classes="quiet")
        fields.put(
            "adapter_pictures",
            pictures_field(
                label="Pictures",
                height=200,
                columns=4,
                elem_id="image-prompt",
            ),
        )
        fields.put("adapter", gr.Dropdown(names, value=names[0], label="IP-Adapter", visible=len(names) > 1))
        fields.slider("adapter_scale", "Image prompt strength", 0, MOST_WEIGHT, 1.0, 0.05)


def details(fields: Fields, bounds: Bounds, sampling: Mapping[str, tuple[int, float]]) -> None:
    """Negative prompt, and how the stages are sampled."""
    most = bounds.most_steps
    with gr.Accordion("Negative prompt, steps, guidance", open=False, elem_id="fold-details"):
        fields.put(
            "negative_prompt",
            gr.Textbox(label="Negative prompt", placeholder="What is to be led away from", max_lines=4),
        )
        for prefix, label, stage in (("", "", "stage_c"), ("decoder_", "Decoder ", "stage_b")):
            steps, guidance = sampling[stage]
            with gr.Row():
                fields.slider(f"{prefix}steps", f"{label}steps".capitalize(), 1, most, min(steps, most), 1)
                fields.slider(
                    f"{prefix}guidance",
                    f"{label}guidance".capitalize(),
                    0,
                    max(MOST_GUIDANCE, guidance),
                    guidance,
                    0.1,
                )


def lora_sliders(number: int) -> Any:
    """Shows as many sliders as LoRAs are chosen, each under its LoRA's name."""

    def show(names: list[str]) -> Any:
        updates = [
            gr.Slider(visible=i < len(names), label=f"Weight of {names[i]}" if i < len(names) else "")
            for i in range(number)
        ]
        return updates if number > 1 else updates[0]

    return show
