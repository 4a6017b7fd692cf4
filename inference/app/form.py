"""The form: what visitors fill in, and the wish that comes of it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gradio as gr

from inference.app import sections
from inference.app.fields import painter, picture_field
from inference.app.offers import Offers
from inference.app.sections import MOST_LORAS, Fields
from inference.app.settings import Bounds
from inference.app.uploads import Uploads
from inference.app.wishes import TASKS, Wish
from inference.tasks import TASKS as ALL_TASKS

NO_VARIATION = (
    "Variations need a Stage C that has learned with an image encoder; this one has not. "
    "An image prompt, or Image to image, can do something like it."
)
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
    ) -> None:
        self.offers, self.bounds, self.sampling, self.can_vary = offers, bounds, sampling, can_vary
        self.fields = Fields()
        self.prompt = self.fields.put(
            "prompt",
            gr.Textbox(
                label="Prompt",
                lines=1,
                max_lines=8,
                autofocus=True,
                elem_id="prompt",
                placeholder="What is to be seen? Enter draws it.",
            ),
        )
        self.task = self.fields.put("task", gr.Textbox("text_to_image", visible="hidden", label="Task"))
        with gr.Tabs(elem_id="tasks") as self.tabs:
            self._tasks()

    def _tasks(self) -> None:
        for task, label in TASKS.items():
            with gr.Tab(label, id=task) as tab:
                if task == "text_to_image":
                    gr.Markdown("Drawn from the prompt alone.", elem_classes="quiet")
                elif task == "image_to_image":
                    self.fields.put(task, picture_field("Picture", height=240))
                    self.fields.slider(
                        "strength",
                        "Strength",
                        0.05,
                        1,
                        ALL_TASKS[task].strength,
                        0.05,
                        info="How much is drawn anew: little keeps the picture, 1 nothing of it.",
                    )
                elif task == "image_variation":
                    if self.can_vary:
                        self.fields.put(task, picture_field("Picture", height=240))
                    else:
                        gr.Markdown(NO_VARIATION, elem_classes="quiet")
                else:
                    gr.Markdown("Paint over what is to be drawn anew; the rest stays.", elem_classes="quiet")
                    self.fields.put(task, painter("Picture", height=420, elem_id="painter"))
            tab.select(None, None, self.task, js=f"() => '{task}'")

    def folds(self) -> None:
        """The sections for all tabs, folded."""
        sections.size_and_seed(self.fields, self.bounds)
        if self.offers.loras:
            sections.loras(self.fields, self.offers)
        if self.offers.controlnets:
            self.look, self.seen = sections.control(self.fields, self.offers)
        if self.offers.ip_adapters:
            sections.image_prompt(self.fields, self.offers)
        sections.details(self.fields, self.bounds, self.sampling)

    def values(self, data: Data) -> dict[str, Any]:
        """Values by name, of all fields that there are."""
        return {name: data[field] for name, field in self.fields.items()}

    def wish(self, data: Data, uploads: Uploads) -> Wish:
        """What the fields ask for; uploads are verified. Refused for a picture that is none."""
        values = self.values(data)
        task = values.pop("task")
        picture, mask = started_from(task, values, uploads)
        names = (
            "prompt",
            "negative_prompt",
            "seed",
            "num_images",
            "size",
            "width_px",
            "height_px",
            "steps",
            "decoder_steps",
            "strength",
            "control",
            "control_scale",
            "control_start",
            "control_end",
            "adapter",
            "adapter_scale",
        )
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
