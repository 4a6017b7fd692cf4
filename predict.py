"""The predictor that Cog serves.

Its inputs have the names of camenduru/stable-cascade on Replicate; defaults and bounds are those of
jyoung105/stable-cascade there, except that up to 100 steps may be asked for and sides begin at 16 pixels.
"""

import os
import random
import tempfile
from pathlib import Path as Folder

from cog import BasePredictor, Input, Path

from inference import Cascade, StageSettings, write_picture
from inference.settings import RELEASED_ENCODERS

RUN = "KASKADE_RUN"  # environment: a folder of runs in the place of the released weights in models/
MODELS = Folder("models")
SIZES = ("", "_bf16", "_lite", "_lite_bf16")  # of Stage B and Stage C; the first that is there is taken
MAX_RANDOM_SEED = 2**31
AT_ONCE = 4  # pictures


class Predictor(BasePredictor):
    """Text to pictures. `cog build` reads the inputs without running them: all bounds are plain numbers."""

    def setup(self) -> None:
        """Find the weights, and draw one small picture so that all of them are loaded."""
        self.cascade = Cascade.load(**where())
        self.cascade.generate(
            "", width_px=64, height_px=64, stage_c=StageSettings(steps=1), stage_b=StageSettings(steps=1)
        )

    def predict(
        self,
        prompt: str = Input(description="What the pictures show", max_length=10000),
        negative_prompt: str = Input(description="What they are led away from", default="", max_length=10000),
        width: int = Input(description="Width in pixels", default=1024, ge=16, le=2048),
        height: int = Input(description="Height in pixels", default=1024, ge=16, le=2048),
        num_images_per_prompt: int = Input(
            description="How many pictures; their seeds count up", default=1, ge=1, le=4
        ),
        prior_num_inference_steps: int = Input(
            description="Steps of Stage C, which draws", default=20, ge=1, le=100
        ),
        prior_guidance_scale: float = Input(
            description="How closely Stage C follows the prompt; up to 1: without guidance",
            default=4.0,
            ge=0,
            le=20,
        ),
        decoder_num_inference_steps: int = Input(
            description="Steps of Stage B, which decodes", default=10, ge=1, le=100
        ),
        decoder_guidance_scale: float = Input(
            description="The guidance of Stage B; up to 1: without", default=0.0, ge=0, le=20
        ),
        seed: int | None = Input(
            description="Decides the pictures; left out: another each time",
            default=None,
            ge=0,
            le=9007199254740991,
        ),
    ) -> list[Path]:
        """Draw the pictures; each PNG says how it was made."""
        if seed is None:
            seed = random.randrange(MAX_RANDOM_SEED)
        print(f"seed {seed}")
        pictures = self.cascade.generate(
            prompt,
            seeds=[seed + i for i in range(num_images_per_prompt)],
            batch_size=AT_ONCE,
            negative_prompt=negative_prompt,
            width_px=width,
            height_px=height,
            stage_c=StageSettings(steps=prior_num_inference_steps, guidance=max(1.0, prior_guidance_scale)),
            stage_b=StageSettings(
                steps=decoder_num_inference_steps, guidance=max(1.0, decoder_guidance_scale)
            ),
        )
        folder = Folder(tempfile.mkdtemp())
        return [Path(write_picture(picture, folder)) for picture in pictures]


def where() -> dict[str, str]:
    """Keywords of Cascade.load: the run that the environment names, else the released weights in models/.

    Raises FileNotFoundError.
    """
    if run := os.environ.get(RUN):
        return {"run": run}
    found = {"stage_a": str(MODELS / "stage_a.safetensors")}
    for stage in ("stage_b", "stage_c"):
        files = [MODELS / f"{stage}{size}.safetensors" for size in SIZES]
        if not (there := [file for file in files if file.is_file()]):
            raise FileNotFoundError(
                f"{files[0]}: not there, in no size; `python -m scripts.download_models --for inference` "
                f"fetches it, or {RUN} names a folder of runs"
            )
        found[stage] = str(there[0])
    return found | {"text_encoder": RELEASED_ENCODERS["text_encoder"]}
