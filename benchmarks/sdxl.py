"""SDXL's pipeline with random weights: as large and as fast as the real one, its pictures are noise.

Sizes are those of the released model's configs (stabilityai/stable-diffusion-xl-base-1.0). The prompt's
embeddings are given instead of computed, which spares SDXL its two text encoders.
"""

from collections.abc import Callable
from typing import Any

import torch

STEPS, GUIDANCE = 30, 5.0
TEXT_TOKENS, POOLED = 77, 1280
UNET: dict[str, Any] = {
    "sample_size": 128,
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "layers_per_block": 2,
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
VAE: dict[str, Any] = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
    "sample_size": 1024,
    "scaling_factor": 0.13025,
}
SCHEDULER = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
SMALL_UNET: dict[str, Any] = {
    "block_out_channels": (32, 64, 64),
    "transformer_layers_per_block": 1,
    "cross_attention_dim": 32,
}
SMALL_UNET |= {"attention_head_dim": 2, "sample_size": 8, "layers_per_block": 1}
SMALL_VAE = {"block_out_channels": (32, 32, 32, 32), "layers_per_block": 1, "sample_size": 64}


class SDXL:
    """The pipeline on a device, in bfloat16; channels last, as its documentation advises."""

    def __init__(self, place: torch.device, small: bool) -> None:
        from diffusers import (
            AutoencoderKL,
            EulerDiscreteScheduler,
            StableDiffusionXLPipeline,
            UNet2DConditionModel,
        )

        self.px, self.steps = (64, 2) if small else (1024, STEPS)
        config = {**UNET, **(SMALL_UNET if small else {})}
        self.width: int = config["cross_attention_dim"]
        unet = fresh(UNet2DConditionModel, config, place)
        vae = fresh(AutoencoderKL, {**VAE, **(SMALL_VAE if small else {})}, place)
        pipeline: Any = StableDiffusionXLPipeline
        self.pipeline = pipeline(
            vae=vae,
            text_encoder=None,
            text_encoder_2=None,
            tokenizer=None,
            tokenizer_2=None,
            unet=unet,
            scheduler=EulerDiscreteScheduler(**SCHEDULER, timestep_spacing="leading", steps_offset=1),
        )
        self.pipeline.set_progress_bar_config(disable=True)
        self.eager, self.compiled = unet, torch.compile(unet, mode="reduce-overhead")

    def pictures(self, batch: int, compiled: bool) -> Callable[[], list[Any]]:
        """A turn that draws a batch; PIL images."""
        place = self.eager.device

        def embeddings(*shape: int) -> torch.Tensor:
            return torch.randn(batch, *shape, device=place, dtype=torch.bfloat16)

        prompts = {
            "prompt_embeds": embeddings(TEXT_TOKENS, self.width),
            "negative_prompt_embeds": embeddings(TEXT_TOKENS, self.width),
            "pooled_prompt_embeds": embeddings(POOLED),
            "negative_pooled_prompt_embeds": embeddings(POOLED),
        }

        def draw() -> list[Any]:
            self.pipeline.unet = self.compiled if compiled else self.eager
            return self.pipeline(
                **prompts,
                height=self.px,
                width=self.px,
                num_inference_steps=self.steps,
                guidance_scale=GUIDANCE,
            ).images

        return draw


def fresh(kind: Any, config: dict[str, Any], place: torch.device) -> Any:
    """A network of diffusers' with small random weights."""
    with torch.device("meta"):
        network = kind(**config)
    network.to(torch.bfloat16).to_empty(device=place)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(0, 0.02)
    return network.eval().requires_grad_(False).to(memory_format=torch.channels_last)
