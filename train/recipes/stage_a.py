"""Stage A: a VQGAN between pixels and latents, with a discriminator that joins in later.

The generator's loss is of pixels, VGG16 features, commitment to the codebook, and the adversary's opinion
(Esser et al. 2021, arXiv:2012.09841). Its decoder reads both quantized latents and unquantized ones, which
Stage B will draw.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import gdf
from dataset_tools.batches import Batch
from modules import Discriminator, StageA
from modules.metrics import psnr
from modules.schema import from_plain
from train.conditioning import chance
from train.config import Config
from train.losses.adversary import Adversary, recorded_input
from train.losses.codebook import CodebookCare
from train.losses.perceptual import PerceptualDistance
from train.losses.pixels import pixel_loss
from train.networks import check_networks, evaluating, freeze_batchnorm, learning_network
from train.parallel.shards import whole_weights
from train.pictures import num_counted, pictures
from train.recipe import Metrics
from train.recipes.settings import StageAModel, StageASettings
from train.rng import StepRng


class StageARecipe:
    """Players: the generator (Stage A), and the discriminator, which is idle before its start step."""

    players: tuple[str, ...] = ("generator", "discriminator")
    learning = ("stage_a", "discriminator")

    def __init__(self, config: Config) -> None:
        self.settings = from_plain(StageASettings, config.recipe, "recipe")
        self.model = from_plain(StageAModel, config.model, "model")
        check_networks(self.model, self.learning)
        self.seed = config.run.seed
        self.step = 0
        self.adversary = Adversary(self.settings.adversarial_weight, self.settings.adversarial_start_step)

    def build(self, device: torch.device) -> None:
        settings = self.settings
        self.perceptual = None
        if settings.perceptual_weight > 0 and settings.perceptual_weights is not None:
            distance = PerceptualDistance(settings.perceptual_weights, settings.perceptual_linear_weights)
            self.perceptual = distance.to(device)
        self.stage_a: StageA = learning_network("stage_a", self.model.stage_a, device)
        judge = learning_network("discriminator", self.model.discriminator, device)
        self.discriminator: Discriminator = judge
        num_codes = self.stage_a.vquantizer.codebook.num_embeddings
        self.codebook = CodebookCare(num_codes, settings.revive_every, self.seed)

    def prepared(self) -> list[nn.Module]:
        return list(self.networks().values())

    def helpers(self) -> list[nn.Module]:
        return []

    def trainable(self) -> dict[str, nn.Module]:
        return {"generator": self.stage_a, "discriminator": self.discriminator}

    def networks(self) -> dict[str, nn.Module]:
        return {name: getattr(self, name) for name in self.learning}

    def facts(self, name: str) -> dict[str, Any]:
        return {}

    def export(self, folder: Path) -> None:
        """Nothing beside the weights."""

    def loss(self, player: str, batch: Batch, rng: StepRng) -> tuple[Tensor, Metrics]:
        images = pictures(batch)
        if player == "generator":
            return self._generator_loss(images, rng, num_counted(batch))
        if self.adversary.is_active(self.step):
            return self.adversary.discriminator_loss(self.discriminator, images)
        return images.new_zeros(()), {}

    def _generator_loss(self, images: Tensor, rng: StepRng, counted: int) -> tuple[Tensor, Metrics]:
        settings = self.settings
        if settings.freeze_batchnorm_step is not None and self.step >= settings.freeze_batchnorm_step:
            freeze_batchnorm(self.stage_a)
        quantized = torch.tensor(chance(rng, settings.quantized_share), device=images.device)
        with recorded_input(self.stage_a.out_block[0]) as features:
            drawn, code = self.stage_a(images, quantized, self._noise(images, rng))
        drawn = drawn.float()
        vectors = code.unquantized * self.stage_a.scale_factor
        self.codebook.observe(code.indices, vectors, rng, self.step, counted)
        metrics: dict[str, float | Tensor] = {
            "psnr": psnr(drawn.detach(), images).mean(),
            **self.codebook.metrics(),
        }
        active = self.adversary.is_active(self.step)
        views = self.adversary.balance.views(drawn, features[0]) if active else (drawn, drawn)
        loss = pixel_loss(views[0], images, settings.l1_weight, settings.l2_weight)
        if self.perceptual is not None:
            perceptual = self.perceptual(views[0], images).mean()
            loss = loss + settings.perceptual_weight * perceptual
            metrics["perceptual"] = perceptual.detach()
        loss = loss + code.codebook_loss + settings.commitment_weight * code.commitment_loss
        metrics |= {"reconstruction": loss.detach(), "commitment": code.commitment_loss.detach()}
        if active:
            adversarial, its_metrics = self.adversary.generator_loss(self.discriminator, views[1])
            loss, metrics = loss + adversarial, {**metrics, **its_metrics}
        return loss, metrics

    def _noise(self, images: Tensor, rng: StepRng) -> Tensor | None:
        if not self.settings.latents_noise:
            return None
        height, width = (size // self.stage_a.factor for size in images.shape[-2:])
        shape = (len(images), self.stage_a.c_latent, height, width)
        return self.settings.latents_noise * gdf.randn(shape, rng.samples, images.device)

    @torch.no_grad()
    def sample(self, batch: Batch, rng: StepRng) -> dict[str, Tensor]:
        images = pictures(batch)
        every = torch.ones(len(images), dtype=torch.bool, device=images.device)
        with evaluating(self.stage_a):
            quantized, unquantized = (self.stage_a(images, mask)[0] for mask in (every, ~every))
        rows = {"original": images, "reconstructed, quantized": quantized, "reconstructed": unquantized}
        return {label: row.float().clamp(0, 1) for label, row in rows.items()}

    def after_step(self, step: int) -> None:
        self.codebook.after_step(step, self.stage_a.vquantizer.codebook.weight)
        self.adversary.after_step()
        with whole_weights(self.discriminator):
            self.discriminator.update_spectral_norms()
        self.step = step + 1

    def state_dict(self) -> dict[str, Any]:
        codebook, balance = self.codebook.state_dict(), self.adversary.balance.state_dict()
        return {"step": self.step, "codebook": codebook, "balance": balance}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.step = state["step"]
        self.codebook.load_state_dict(state["codebook"])
        self.adversary.balance.load_state_dict(state["balance"])
