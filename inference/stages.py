"""The stages of the cascade as functions of latents, conditions and seeds."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

import gdf
from inference.attached import Adapters
from inference.inputs import ControlledInputs, Inputs
from inference.networks import Networks
from inference.progress import OnStep, Step
from inference.rng import stage_generator
from inference.sampling import Start, sample
from inference.settings import Request
from inference.sizes import Size
from inference.sources import Source
from inference.texts import Texts
from modules.conditions import compress, compressor_grid, latent_size, stage_b_inputs, stage_c_inputs
from modules.tiles import TILE_PX, decode_tiled


class Stages:
    """What each stage does, for a batch of requests that agree in all but prompts, seeds and pictures.

    Images are [B, 3, H, W], 0 to 1; compressor latents [B, 16, h, w]; Stage A latents [B, 4, ⌈H/4⌉, ⌈W/4⌉].
    All are float32 on the device; the networks compute in their own number format. tile_px: Stage A works on
    no more pixels at once than a square of that side has, in tiles; None: on whole batches.
    """

    def __init__(self, networks: Networks, tile_px: int | None = TILE_PX) -> None:
        self.networks, self.tile_px = networks, tile_px
        self.adapters = Adapters(networks)
        self.texts = Texts(networks, self.adapters.loras)

    @property
    def device(self) -> torch.device:
        """Where the networks compute."""
        return self.networks.device

    def sample_c(
        self,
        batch: Sequence[Request],
        on_step: OnStep,
        *,
        images: Tensor | None = None,
        start: Start | None = None,
        source: Source | None = None,
    ) -> Tensor:
        """Draw compressor latents for the prompts.

        images: pictures whose CLIP embedding is a further condition. start: compressor latents to begin from,
        at the noise level of the requests' strength, and what of them is kept. source: the requests' own
        pictures, for ControlNets that are not given any.
        """
        settings, t_start = self._steps("stage_c", batch[0], start)
        config = self.networks.peek("stage_c").config
        grid = self.grid_c(batch[0].size)
        embeds = None if images is None else self._image_embeds(images)
        texts, negatives = self.texts.of("stage_c", batch)
        inputs = Inputs(
            stage_c_inputs(texts, embeds, config["c_clip_img"]),
            stage_c_inputs(negatives, None, config["c_clip_img"]),
        )
        if batch[0].image_prompt:
            inputs = inputs.with_image_tokens(self.adapters.image_prompts.tokens(batch))
        inputs_at: Callable[[int], Inputs] = inputs
        if controls := batch[0].controls:
            maps = self.adapters.controls.maps(batch, grid, source)
            inputs_at = ControlledInputs(inputs, maps, controls, settings.steps)
        shape = (len(batch), config["c_in"], *grid)
        return self._sample("stage_c", batch, inputs_at, shape, on_step, settings, start, t_start)

    def sample_b(self, batch: Sequence[Request], latents: Tensor, on_step: OnStep) -> Tensor:
        """Draw the Stage A latents of pictures whose compressor latents are given."""
        factor = self.networks.peek("stage_a").factor
        sides = [latent_size(side, factor) for side in batch[0].size]
        shape = (len(batch), self.networks.peek("stage_b").config["c_in"], *sides)
        texts, negatives = self.texts.of("stage_b", batch)
        inputs = Inputs(stage_b_inputs(texts, latents), stage_b_inputs(negatives, torch.zeros_like(latents)))
        settings, _ = self._steps("stage_b", batch[0])
        return self._sample("stage_b", batch, inputs, shape, on_step, settings)

    def decode(self, latents: Tensor, size: Size) -> Tensor:
        """Stage A latents to images, cut to the size where the latents cover a few pixels more."""
        with self.networks.use("stage_a") as network:
            if self.tile_px is None:
                images = network.decode(latents)
            else:
                images = decode_tiled(network, latents, self.tile_px)
        return images[:, :, : size.height, : size.width].float()

    def encode(self, images: Tensor, *, quantized: bool = False) -> Tensor:
        """Images whose sides Stage A's factor divides to Stage A latents; Stage B draws such, unquantized."""
        with self.networks.use("stage_a") as network:
            images = images.to(self.device)
            latents = network.encode(images).latents if quantized else network.encode_unquantized(images)
            return latents.float()

    def compress(self, images: Tensor, grid: tuple[int, int]) -> Tensor:
        """Images, resized to just that many latents, to compressor latents."""
        with self.networks.use("semantic_compressor") as network:
            return compress(network, images.to(self.device), grid)

    def preview(self, latents: Tensor) -> Tensor:
        """Compressor latents to small images, eight times the latents' size."""
        with self.networks.use("previewer") as network:
            return network(latents).float()

    def grid_c(self, size: Size) -> tuple[int, int]:
        """Height and width in compressor latents of a picture that Stage C draws."""
        compression = self.networks.facts("stage_c")["compression"]
        return latent_size(size.height, compression), latent_size(size.width, compression)

    def grid_b(self, size: Size, scale: float = 1.0) -> tuple[int, int]:
        """Height and width in compressor latents of a picture as Stage B was trained to see it.

        scale: at which it sees the picture further shrunk, but not further than it was trained to.
        """
        factor = self.networks.peek("semantic_compressor").factor
        facts = self.networks.facts("stage_b")
        scale = max(scale, min(facts.get("random_scale", [1.0])))
        return compressor_grid(size, facts["compressor_scale"] * scale, factor)

    def _image_embeds(self, images: Tensor) -> Tensor:
        with self.networks.use_encoder("image_encoder", "stage_c") as encoder:
            return encoder(images.to(self.device))

    def _steps(
        self, stage: str, request: Request, start: Start | None = None
    ) -> tuple[gdf.SamplingSettings, float]:
        """How a stage is sampled, and from which noise level on: with a start from the request's strength."""
        settings = self.networks.sampling(stage, getattr(request, stage))
        if start is None or request.strength is None:
            return settings, 1.0
        # As many steps per noise level as without a start.
        return replace(settings, steps=max(1, round(settings.steps * request.strength))), request.strength

    def _sample(
        self,
        stage: str,
        batch: Sequence[Request],
        inputs_at: Callable[[int], Inputs],
        shape: tuple[int, ...],
        on_step: OnStep,
        settings: gdf.SamplingSettings,
        start: Start | None = None,
        t_start: float = 1.0,
    ) -> Tensor:
        """Run the diffusion of a stage; its arithmetic is float32, the network's its own."""
        diffusion = gdf.build(self.networks.facts(stage)["gdf"])
        generators = [stage_generator(request.seed, stage) for request in batch]
        noise = gdf.randn(shape, generators, self.device)
        with (
            self.networks.use(stage) as network,
            self.adapters.on_stage(stage, network, batch[0]),
        ):
            steps = sample(network, diffusion, settings, inputs_at, noise, generators, start, t_start)
            for step, latents in enumerate(steps, start=1):
                on_step(Step(stage, step, settings.steps, latents))
        return latents
