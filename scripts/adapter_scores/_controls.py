"""Pictures drawn with and without a control, from the same prompts and noise."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from PIL import Image
from torch import Tensor

from dataset_tools.shapes_world import Scene
from inference import Cascade, Picture, Request, StageSettings
from inference.adapters import ControlSettings
from inference.sources import to_pixels
from modules.pictures import Row, draw_sheet, to_image
from scripts.scores import mean, score_prompts

BATCH_SIZE, COLUMNS = 40, 12


@dataclass(frozen=True)
class Trial:
    """What is asked for.

    prompts; control pictures [B, c, H, W] in [0, 1]; scenes: what both amount to; stage_c: how it is drawn.
    """

    prompts: Sequence[str]
    controls: Tensor
    scenes: Sequence[Scene]
    stage_c: StageSettings = StageSettings()


@dataclass(frozen=True)
class Drawn:
    """What came out of a trial without the control and with it; the same noise in both."""

    base: list[Picture]
    controlled: list[Picture]

    def accuracy(self, trial: Trial, what: str) -> tuple[float, float]:
        """Share of pictures in which the judge reads what the scenes say, without the control and with it."""
        base, controlled = (
            score_prompts(trial.scenes, made)["accuracy"][what] for made in (self.base, self.controlled)
        )
        return base, controlled

    def pixels(self) -> tuple[Tensor, Tensor]:
        """The pictures [B, 3, H, W] in [0, 1], without the control and with it."""
        base, controlled = (
            torch.stack([to_pixels(picture.image) for picture in made])
            for made in (self.base, self.controlled)
        )
        return base, controlled


def draw(cascade: Cascade, run: Path, trial: Trial) -> Drawn:
    """Draw a trial; run: of the ControlNet."""
    plain = [
        Request(prompt=prompt, seed=seed, stage_c=trial.stage_c) for seed, prompt in enumerate(trial.prompts)
    ]
    with TemporaryDirectory() as folder:
        controlled = []
        for request, control in zip(plain, trial.controls, strict=True):
            path = Path(folder) / f"{request.seed}.png"
            as_image(control).save(path)
            settings = ControlSettings(str(run), image=str(path), raw=True)
            controlled.append(replace(request, controls=(settings,)))
        made = [list(cascade.run(cascade.batches(each, BATCH_SIZE))) for each in (plain, controlled)]
    return Drawn(*made)


def as_image(control: Tensor) -> Image.Image:
    """A control picture [c, H, W] as a grey, coloured or (four channels) partly transparent image."""
    return to_image(control if len(control) > 1 else control.expand(3, -1, -1))


def sheet(trial: Trial, originals: Tensor, drawn: Drawn) -> Image.Image:
    """The first columns: control, the picture that it was made of, without control, with it."""
    rows = {
        "control": [to_image(each[:3].expand(3, -1, -1)) for each in trial.controls[:COLUMNS]],
        "original": [to_image(each) for each in originals[:COLUMNS]],
        "without control": [picture.image for picture in drawn.base[:COLUMNS]],
        "with control": [picture.image for picture in drawn.controlled[:COLUMNS]],
    }
    *first, last = (Row(images, label=label) for label, images in rows.items())
    return draw_sheet([*first, last._replace(captions=trial.prompts[:COLUMNS])])


def means(values: Sequence[Sequence[float]]) -> tuple[float, float]:
    """The means of a measure without the control and with it."""
    base, controlled = (mean(list(each)) for each in values)
    return base, controlled
