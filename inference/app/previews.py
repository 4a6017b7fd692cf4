"""Small pictures of what Stage C has drawn so far, as often as they cost little."""

import io
import time

from PIL import Image

from inference.progress import Step
from inference.stages import Stages
from modules.pictures import to_image

SHARE = 0.1  # of the time of sampling that previews may take
LEAST_SECONDS = 0.15  # between two: no eye and no connection needs more
QUALITY = 85


class Previews:
    """The previews of one wish."""

    def __init__(self, stages: Stages) -> None:
        self.stages = stages
        self._next = 0.0  # when the next one is due

    def of(self, step: Step) -> bytes | None:
        """A JPEG of the step's pictures side by side; None when it is too early for another one.

        The first step and the last have one in any case.
        """
        began = time.monotonic()
        if began < self._next and step.step < step.steps:
            return None
        images = [to_image(pixels) for pixels in self.stages.preview(step.latents)]
        encoded = side_by_side(images)
        ended = time.monotonic()
        self._next = ended + max(LEAST_SECONDS, (ended - began) / SHARE)
        return encoded


def side_by_side(images: list[Image.Image]) -> bytes:
    """Pictures of one size in a row, as a JPEG."""
    width, height = images[0].size
    row = Image.new("RGB", (width * len(images), height))
    for i, image in enumerate(images):
        row.paste(image, (i * width, 0))
    stream = io.BytesIO()
    row.save(stream, format="JPEG", quality=QUALITY)
    return stream.getvalue()
