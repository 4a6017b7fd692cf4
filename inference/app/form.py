"""The form: what visitors fill in, and the wish that comes of it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gradio as gr

from inference.app.fields import Painter, PictureField, PicturesField
from inference.app.offers import Offers
from inference.app.settings import Bounds
from inference.app.uploads import Uploads
from inference.app.wishes import LEAST_WEIGHT, MOST_WEIGHT, TASKS, Wish
from inference.sizes import MIN_SIDE_PX
from inference.tasks import TASKS as ALL_TASKS

NO_VARIATION = (
    "Variations need a Stage C that has learned with an image encoder; this one has not. "
    "An image prompt, or Image to image, can do something like it."
)
MOST_LORAS = 4  # at once
MOST_GUIDANCE = 15.0  # of the sliders
Data = Mapping[Any, Any]  # values by field


class Form:
    """All fields, made where it is built, within a page.

    sampling: by stage, steps and guidance that its weights are best sampled with. can_vary: whether Stage C
    has learned with an image encoder.
    """

    def __init__(
        self,
        offers: Offers,
        bounds: Bounds,
        sampling: Mapping[str, tuple[int, float]],
        can_vary: bool,
        upload_limit_bytes: int,
    ) -> None:
        self.offers, self.bounds, self.sampling, self.can_vary = offers, bounds, sampling, can_vary
        self.fields: dict[str, Any] = {}
        self.prompt = self._add(
            "prompt",
            gr.Textbox(
                label="Prompt", lines=1, max_lines=8, autofocus=True, elem_id="prompt",
                placeholder="What is to be seen? Enter draws it.",
            ),
        )
        self.task = self._add("task", gr.Textbox("text_to_image", visible="hidden", label="Task"))
        with gr.Tabs(elem_id="tasks") as self.tabs:
            self._tasks(upload_limit_bytes)

    def _add(self, name: str, field: Any) -> Any:
        self.fields[name] = field
        return field

    def _tasks(self, upload_limit_bytes: int) -> None:
        for task, label in TASKS.items():
            with gr.Tab(label, id=task) as tab:
                if task == "text_to_image":
                    gr.Markdown("Drawn from the prompt alone.", elem_classes="quiet")
                elif task == "image_to_image":
                    self._add(task, PictureField("Picture", height=240))
                    self._slider("strength", "Strength", 0.05, 1, ALL_TASKS[task].strength, 0.05,
                                 info="How much is drawn anew: little keeps the picture, 1 nothing of it.")
                elif task == "image_variation":
                    if self.can_vary:
                        self._add(task, PictureField("Picture", height=240))
                    else:
                        gr.Markdown(NO_VARIATION, elem_classes="quiet")
                else:
                    gr.Markdown("Paint over what is to be drawn anew; the rest stays.", elem_classes="quiet")
                    self._add(task, Painter("Picture", upload_limit_bytes, height=420))
            tab.select(None, None, self.task, js=f"() => '{task}'")

    def _slider(self, name: str, label: str, least: float, most: float, value: Any, step: float,
                **keywords: Any) -> Any:
        keywords.setdefault("elem_id", name)
        return self._add(name, gr.Slider(least, most, value, step=step, label=label, buttons=[], **keywords))

    def folds(self) -> None:
        """The sections for all tabs, folded."""
        self._size_and_seed()
        if self.offers.loras:
            self._loras()
        if self.offers.controlnets:
            self._control()
        if self.offers.ip_adapters:
            self._image_prompt()
        self._details()

    def _size_and_seed(self) -> None:
        own, most, step = self.bounds.own_side_px, self.bounds.most_side_px, self.bounds.step_px
        with gr.Accordion("Size, number, seed", open=False, elem_id="fold-size"):
            with gr.Row():
                self._slider("num_images", "Pictures", 1, self.bounds.most_images, 1, 1)
                self._add("seed", gr.Textbox(label="Seed", placeholder="another one each time",
                                             max_lines=1, elem_id="seed"))
            size = self._add("size", gr.Checkbox(False, label="Choose the size",
                                                 info=f"otherwise the model's own, {own} px"))
            with gr.Row(visible=False) as sides:
                least = max(MIN_SIDE_PX, own // 4)
                self._slider("width_px", "Width", least, most, own, step)
                self._slider("height_px", "Height", least, most, own, step)
            size.change(lambda on: gr.Row(visible=on), size, sides, queue=False, api_visibility="private",
                        show_progress="hidden")

    def _loras(self) -> None:
        names = list(self.offers.loras)
        with gr.Accordion("LoRAs", open=False, elem_id="fold-loras"):
            chosen = self._add("loras", gr.Dropdown(
                names, value=[], multiselect=True, max_choices=MOST_LORAS, label="LoRAs", elem_id="loras"))
            sliders = [
                self._slider(f"lora_{i}", f"Weight {i + 1}", LEAST_WEIGHT, MOST_WEIGHT, 1.0, 0.05,
                             visible=False, elem_id=f"lora-{i}")
                for i in range(min(MOST_LORAS, len(names)))
            ]
            chosen.change(lora_sliders(len(sliders)), chosen, sliders, queue=False,
                          api_visibility="private", show_progress="hidden")

    def _control(self) -> None:
        filters = self.offers.filters
        choices = [("none", "")] + [
            (f"{name} ({filters[name]})" if filters[name] else name, name) for name in self.offers.controlnets
        ]
        with gr.Accordion("ControlNet", open=False, elem_id="fold-control"):
            self._add("control", gr.Dropdown(choices, value="", label="ControlNet", elem_id="control"))
            with gr.Row():
                self._add("control_picture", PictureField(
                    "Picture to look at", height=200, placeholder="or the one of the tab"))
                self.seen = gr.Image(label="What it sees", height=200, interactive=False, buttons=[],
                                     format="png", elem_id="seen")
            self.look = gr.Button("Show what it sees", size="sm")
            self._slider("control_scale", "ControlNet strength", 0, MOST_WEIGHT, 1.0, 0.05)
            with gr.Row():
                self._slider("control_start", "From", 0, 1, 0.0, 0.05, info="share of the steps")
                self._slider("control_end", "To", 0, 1, 1.0, 0.05, info="share of the steps")

    def _image_prompt(self) -> None:
        names = list(self.offers.ip_adapters)
        with gr.Accordion("Image prompt", open=False, elem_id="fold-image-prompt"):
            gr.Markdown("Pictures beside the words: what is drawn takes after them.", elem_classes="quiet")
            self._add("adapter_pictures", PicturesField(
                label="Pictures", height=200, columns=4, file_types=["image"], type="filepath",
                interactive=True, buttons=[], elem_id="image-prompt"))
            self._add("adapter", gr.Dropdown(names, value=names[0], label="IP-Adapter",
                                             visible=len(names) > 1))
            self._slider("adapter_scale", "Image prompt strength", 0, MOST_WEIGHT, 1.0, 0.05)

    def _details(self) -> None:
        most = self.bounds.most_steps
        with gr.Accordion("Negative prompt, steps, guidance", open=False, elem_id="fold-details"):
            self._add("negative_prompt", gr.Textbox(
                label="Negative prompt", placeholder="What is to be led away from", max_lines=4))
            for prefix, label, stage in (("", "", "stage_c"), ("decoder_", "Decoder ", "stage_b")):
                steps, guidance = self.sampling[stage]
                with gr.Row():
                    self._slider(f"{prefix}steps", f"{label}steps".capitalize(), 1, most, min(steps, most), 1)
                    self._slider(f"{prefix}guidance", f"{label}guidance".capitalize(), 0,
                                 max(MOST_GUIDANCE, guidance), guidance, 0.1)

    def values(self, data: Data) -> dict[str, Any]:
        """Values by name, of all fields that there are."""
        return {name: data[field] for name, field in self.fields.items()}

    def wish(self, data: Data, uploads: Uploads) -> Wish:
        """What the fields ask for; uploads are verified. Refused for a picture that is none."""
        values = self.values(data)
        task = values.pop("task")
        picture, mask = started_from(task, values, uploads)
        names = ("prompt", "negative_prompt", "seed", "num_images", "size", "width_px", "height_px", "steps",
                 "decoder_steps", "strength", "control", "control_scale", "control_start", "control_end",
                 "adapter", "adapter_scale")
        plain = {name: values[name] for name in names if values.get(name) is not None}
        chosen = values.get("loras") or []
        return Wish(
            task=task if isinstance(task, str) else "",
            **plain,
            guidance=self._guidance("stage_c", values["guidance"]),
            decoder_guidance=self._guidance("stage_b", values["decoder_guidance"]),
            picture=picture,
            mask=mask,
            loras={name: values.get(f"lora_{i}") for i, name in enumerate(chosen)},
            control_picture=taken(values.get("control_picture"), "ControlNet picture", uploads),
            adapter_pictures=tuple(
                uploads.take(path, "Image prompt") for path in values.get("adapter_pictures") or ()
            ),
        )

    def _guidance(self, stage: str, value: Any) -> Any:
        """None where it is the weights' own, which may change from step to step."""
        return None if value == self.sampling[stage][1] else value

    def fill(self, remembered: Mapping[str, Any]) -> dict[Any, Any]:
        """Updates of the fields that bring back a wish."""
        values = {name: value for name, value in remembered.items() if value is not None} | {"num_images": 1}
        chosen = values.pop("loras", {})
        if not values.get("adapter"):
            values.pop("adapter", None)  # which adapter is offered first stays
        updates = {self.fields[name]: value for name, value in values.items() if name in self.fields}
        if "loras" in self.fields:
            names = list(chosen)[: min(MOST_LORAS, len(self.offers.loras))]
            updates[self.fields["loras"]] = names
            for i, name in enumerate(names):
                updates[self.fields[f"lora_{i}"]] = chosen[name]
        return updates | {self.tabs: gr.Tabs(selected=remembered["task"])}


def lora_sliders(number: int) -> Any:
    """Shows as many sliders as LoRAs are chosen, each under its LoRA's name."""

    def show(names: list[str]) -> Any:
        updates = [
            gr.Slider(visible=i < len(names), label=f"Weight of {names[i]}" if i < len(names) else "")
            for i in range(number)
        ]
        return updates if number > 1 else updates[0]

    return show


def started_from(task: Any, values: Mapping[str, Any], uploads: Uploads) -> tuple[Path | None, Path | None]:
    """The picture of the tab that is open, and what is painted over it."""
    given = values.get(task) if task in TASKS else None
    if given is None:
        return None, None
    if task == "inpaint":
        if not given.strokes:
            uploads.take(given.picture, "Picture")
            return None, None
        return uploads.take_painted(given.picture, given.strokes, "Picture")
    return taken(given, "Picture", uploads), None


def taken(path: str | None, what: str, uploads: Uploads) -> Path | None:
    """An upload, verified, if there is one."""
    return None if path is None else uploads.take(path, what)
