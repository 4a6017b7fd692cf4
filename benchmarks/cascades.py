"""Whole cascades with random weights: written once, drawn from by our pipeline and by diffusers'."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

import gdf
from benchmarks.networks import quarter_width, random_network, released
from inference import Cascade
from inference.rng import stage_generator
from inference.settings import StageSettings
from modules import build
from modules.encoders import TextEncoder
from modules.weights import save_network
from modules.weights.conversion import chosen, convert, gather
from modules.weights.writers import Settings

PROMPT = "a red circle on a blue square"
PIXELS_PER_LATENT, COMPRESSOR_SCALE = 42.67, 0.75
# As diffusers documents its pipelines: Stage C guided, Stage B not.
STEPS, GUIDANCE = {"stage_c": 20, "stage_b": 10}, {"stage_c": 4.0, "stage_b": 1.0}
BIG_G = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20}
BIG_G |= {"projection_dim": 1280}


@dataclass(frozen=True)
class Size:
    """The networks of a cascade, and the side of its pictures in pixels."""

    stage_c: dict[str, Any]
    stage_b: dict[str, Any]
    stage_a: dict[str, Any]
    text: dict[str, Any]
    px: int
    steps: dict[str, int] = field(default_factory=lambda: dict(STEPS))


def full_size() -> Size:
    """The released networks."""
    return Size(released("stage_c", "3_6b"), released("stage_b", "1_5b"), {}, dict(BIG_G), 1024)


def small_models() -> Size:
    """The small released ones at a quarter of their width, with 8 layers of text encoder; 512 px."""
    width = BIG_G["hidden_size"] // 4
    text = {"hidden_size": width, "intermediate_size": 4 * width, "projection_dim": width}
    text |= {"num_hidden_layers": 8, "num_attention_heads": 5}
    told: Any = {"c_clip_text": width, "c_clip_text_pooled": width}
    return Size(
        quarter_width(released("stage_c", "1b", **told)),
        quarter_width(released("stage_b", "700m", c_clip=width)),
        {"c_hidden": 96},
        text,
        512,
    )


def tiny() -> Size:
    """What draws a picture in a moment."""
    text = {"hidden_size": 32, "intermediate_size": 32, "projection_dim": 32}
    text |= {"num_hidden_layers": 1, "num_attention_heads": 2}
    told = {"c_clip_text": 32, "c_clip_text_pooled": 32}
    return Size(
        released("stage_c", "1b", True, **told),
        released("stage_b", "700m", True, c_clip=32),
        {"c_hidden": 16, "bottleneck_blocks": 1, "codebook_size": 32},
        text,
        128,
        {"stage_c": 3, "stage_b": 2},
    )


def write(folder: Path, size: Size, place: torch.device, dtype: torch.dtype) -> None:
    """Write diffusers' two pipelines, prior/ and decoder/, with fresh weights in this number format."""
    runs = folder / "runs"
    encoder = TextEncoder(config=size.text, words=PROMPT.split())
    for name, config in (("stage_c", size.stage_c), ("stage_b", size.stage_b), ("stage_a", size.stage_a)):
        made = (
            build(name, config).to(dtype) if name == "stage_a" else random_network(name, config, place, dtype)
        )
        facts: dict[str, Any] = {"gdf": their_diffusion(size.steps[name])} if name in size.steps else {}
        facts |= {"text_encoder": "text_encoder"} if facts else {}
        facts |= {"stage_c": sizes_of_c(size), "stage_b": {"compressor_scale": COMPRESSOR_SCALE}}.get(
            name, {}
        )
        (runs / name / "weights").mkdir(parents=True)
        save_network(runs / name / "weights" / f"{name}.safetensors", made, name, facts)
        if "text_encoder" in facts:
            encoder.save(runs / name / "text_encoder")
        del made
    parts = gather(runs)
    for name in ("prior", "decoder"):
        convert(chosen(parts, [name]), folder / name, Settings("diffusers", dtype=dtype))
    shutil.rmtree(runs)


def sizes_of_c(size: Size) -> dict[str, Any]:
    return {"compression": PIXELS_PER_LATENT, "image_size_px": size.px}


def their_diffusion(steps: int) -> dict[str, Any]:
    """The released diffusion, with the noise condition of diffusers' pipelines in so many steps.

    They tell the network the time, the released code the time at which its clamped schedule has the present
    log-SNR; a table of the steps' times gives theirs.
    """
    times = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    variances = gdf.build(gdf.RELEASED_SPEC).schedule(times).sigmoid()
    table = {"name": "PiecewiseLinearNoiseCond", "x": times.tolist(), "y": variances.tolist()}
    return {**gdf.RELEASED_SPEC, "noise_cond": table}


def our_cascade(folder: Path, place: torch.device, dtype: str, **settings: Any) -> Cascade:
    """The written cascade, in our pipeline."""
    return Cascade.load(
        device=place.type,
        dtype=dtype,
        stage_c=str(folder / "prior"),
        stage_b=str(folder / "decoder" / "decoder"),
        stage_a=str(folder / "decoder"),
        text_encoder=str(folder / "prior"),
        **settings,
    )


def our_pictures(cascade: Cascade, size: Size, batch: int) -> Callable[[], list[Any]]:
    """A turn that draws a batch of pictures, seeds 0, 1, …; PIL images."""

    def settings(stage: str) -> StageSettings:
        # Without what diffusers' pipelines do not have.
        return StageSettings(size.steps[stage], GUIDANCE[stage], shift=1.0, rescale=0.0)

    stages: Any = {stage: settings(stage) for stage in size.steps}

    def draw() -> list[Any]:
        pictures = cascade.generate(
            [PROMPT] * batch,
            seeds=list(range(batch)),
            batch_size=batch,
            width_px=size.px,
            height_px=size.px,
            **stages,
        )
        return [picture.image for picture in pictures]

    return draw


@dataclass
class TheirPipelines:
    """diffusers' prior and decoder of a written cascade."""

    prior: Any
    decoder: Any

    @classmethod
    def load(cls, folder: Path, place: torch.device, dtype: torch.dtype) -> "TheirPipelines":
        from diffusers import StableCascadeDecoderPipeline, StableCascadePriorPipeline
        from diffusers.utils import logging

        logging.set_verbosity_error()
        logging.disable_progress_bar()
        show_stage_a_to_diffusers()
        prior = StableCascadePriorPipeline.from_pretrained(folder / "prior", dtype=dtype)
        decoder = StableCascadeDecoderPipeline.from_pretrained(folder / "decoder", dtype=dtype)
        for pipeline in (prior, decoder):
            pipeline.set_progress_bar_config(disable=True)
            pipeline.to(place)
        return cls(prior, decoder)

    def compiled(self, **options: Any) -> "TheirPipelines":
        """The same with both U-Nets compiled, as its documentation does."""
        prior, decoder = (type(each)(**each.components) for each in (self.prior, self.decoder))
        for new, old in ((prior, self.prior), (decoder, self.decoder)):
            new.register_to_config(
                **{k: v for k, v in old.config.items() if k.endswith(("multiple", "scale"))}
            )
            new.set_progress_bar_config(disable=True)
        prior.prior = torch.compile(self.prior.prior, **options)
        decoder.decoder = torch.compile(self.decoder.decoder, **options)
        return TheirPipelines(prior, decoder)

    def pictures(self, size: Size, batch: int) -> Callable[[], list[Any]]:
        """A turn that draws the same batch; PIL images."""

        def draw() -> list[Any]:
            rngs = {stage: [stage_generator(n, stage) for n in range(batch)] for stage in size.steps}
            latents = self.prior(
                [PROMPT] * batch,
                negative_prompt=[""] * batch,
                height=size.px,
                width=size.px,
                num_inference_steps=size.steps["stage_c"],
                guidance_scale=GUIDANCE["stage_c"],
                generator=rngs["stage_c"],
            ).image_embeddings
            return self.decoder(
                latents,
                [PROMPT] * batch,
                num_inference_steps=size.steps["stage_b"],
                guidance_scale=GUIDANCE["stage_b"],
                generator=rngs["stage_b"],
            ).images

        return draw


def show_stage_a_to_diffusers() -> None:
    """Its present version keeps Stage A's class in another place than its own pipelines look for."""
    import diffusers
    from diffusers.pipelines.deprecated import wuerstchen

    package: Any = diffusers

    package.PaellaVQModel = wuerstchen.PaellaVQModel
    package.pipelines.wuerstchen = wuerstchen
