"""The settings of every recipe: its own (`recipe`), and the networks that it makes (`model`)."""

from dataclasses import dataclass, field
from typing import Literal

from gdf import RELEASED_SAMPLING, SamplingSettings
from modules.schema import bounded
from modules.settings import ImageEncoderSettings, NetworkSettings, TextEncoderSettings


@dataclass
class StageASettings:
    """A weight of 0 leaves a loss out."""

    name: str
    l1_weight: float = bounded(1.0, 0.0)
    l2_weight: float = bounded(0.0, 0.0)
    commitment_weight: float = bounded(0.25, 0.0)
    perceptual_weight: float = bounded(0.0, 0.0)
    perceptual_weights: str | None = None  # torchvision's VGG16 file
    perceptual_linear_weights: str | None = None  # LPIPS' file of learned channel weights
    adversarial_weight: float = bounded(0.0, 0.0)  # 1: the adversary pulls as hard as the reconstruction
    adversarial_start_step: int = bounded(0, 0)
    quantized_share: float = bounded(0.5, 0.0, 1.0)  # of pictures that are decoded from quantized latents
    latents_noise: float = bounded(0.0, 0.0)  # deviation of noise on the latents that the decoder learns from
    freeze_batchnorm_step: int | None = bounded(None, 0)  # from here BatchNorm uses its running statistics
    revive_every: int = bounded(200, 0)  # steps without use that make a code dead; 0: never

    def __post_init__(self) -> None:
        if self.perceptual_weight > 0 and self.perceptual_weights is None:
            raise ValueError(
                "perceptual_weights: missing; name torchvision's VGG16 file (perceptual_weight > 0)"
            )


@dataclass
class StageAModel:
    """Both learn."""

    stage_a: NetworkSettings = field(default_factory=NetworkSettings)
    discriminator: NetworkSettings = field(default_factory=NetworkSettings)


@dataclass
class StageBSettings:
    """Sizes are shares of a training picture's."""

    name: str
    caption_dropout: float = bounded(0.05, 0.0, 1.0)
    latents_noise: float = bounded(0.0, 0.0)  # deviation of noise on the compressor latents (they have 1)
    latents_kept: float = bounded(0.9, 0.0, 1.0)  # of pictures whose compressor latents Stage B sees
    compressor_scale: float = bounded(1.0, 1e-3, 1.0)  # what the compressor sees of a picture's size
    random_scale: tuple[float, float] = (0.5, 1.0)  # times a factor in this range, drawn once per step
    noise: Literal["white", "pyramid"] = "pyramid"
    sampling: SamplingSettings = RELEASED_SAMPLING["stage_b"]  # of sample sheets, and as the weights' default

    def __post_init__(self) -> None:
        low, high = self.random_scale
        if not 0 < low <= high <= 1:
            raise ValueError(f"random_scale: expected 0 < low <= high <= 1, found {list(self.random_scale)}")


@dataclass
class StageBModel:
    """Stage B learns, and the compressor with it unless its `train` is false."""

    stage_a: NetworkSettings
    text_encoder: TextEncoderSettings
    stage_b: NetworkSettings = field(default_factory=NetworkSettings)
    semantic_compressor: NetworkSettings = field(default_factory=NetworkSettings)


@dataclass
class StageCSettings:
    """Training pictures may have the size that the compressor is to see, and stand for larger final ones."""

    name: str
    caption_dropout: float = bounded(0.05, 0.0, 1.0)
    image_kept: float = bounded(0.1, 0.0, 1.0)  # of pictures whose image embedding Stage C sees
    compressor_scale: float = bounded(1.0, 1e-3, 1.0)  # what the compressor sees of a training picture's size
    compression: float | None = bounded(None, 1.0)  # pixels of the final picture per latent; null: as trained
    sampling: SamplingSettings = RELEASED_SAMPLING["stage_c"]  # of sample sheets, and as the weights' default


@dataclass
class StageCModel:
    """Stage C learns. The networks after the image encoder only draw the sample sheets."""

    semantic_compressor: NetworkSettings
    text_encoder: TextEncoderSettings
    stage_c: NetworkSettings = field(default_factory=NetworkSettings)
    image_encoder: ImageEncoderSettings | None = None
    previewer: NetworkSettings | None = None
    stage_b: NetworkSettings | None = None
    stage_a: NetworkSettings | None = None


@dataclass
class PreviewerSettings:
    """A weight of 0 leaves a loss out."""

    name: str
    l1_weight: float = bounded(0.0, 0.0)
    l2_weight: float = bounded(1.0, 0.0)
    compressor_scale: float = bounded(1.0, 1e-3, 1.0)  # what the compressor sees of a training picture's size


@dataclass
class PreviewerModel:
    """The previewer learns."""

    semantic_compressor: NetworkSettings
    previewer: NetworkSettings = field(default_factory=NetworkSettings)
