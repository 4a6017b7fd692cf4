"""The mathematics of diffusion: schedules, scalers, targets, noise conditions, loss weights, samplers; GDF.

Everything is a function of log-SNR = ln(signal variance / noise variance). Random numbers come from
generators that the caller passes, and from nowhere else.
"""

from gdf.buckets import LossBuckets
from gdf.build import build, build_sampler, build_schedule
from gdf.diffusion import GDF, Diffused
from gdf.guidance import Guidance
from gdf.loss_weights import (
    AdaptiveLossWeight,
    BaseLossWeight,
    ComposedLossWeight,
    ConstantLossWeight,
    DebiasedLossWeight,
    MinSNRLossWeight,
    MinSNRPlusOneLossWeight,
    P2LossWeight,
    SechLossWeight,
    SigmoidLossWeight,
    SNRLossWeight,
    SNRPlusOneLossWeight,
    TruncatedSNRLossWeight,
)
from gdf.noise import Randomness, offset_noise, pyramid_noise, rand, randn
from gdf.noise_conditions import (
    BaseNoiseCond,
    CosineTNoiseCond,
    DiscreteNoiseCond,
    EDMNoiseCond,
    EDMSigmaNoiseCond,
    LogSNRNoiseCond,
    PiecewiseLinearNoiseCond,
    RectifiedFlowsNoiseCond,
    SigmoidNoiseCond,
    StableDiffusionNoiseCond,
)
from gdf.released import RELEASED_SAMPLING, RELEASED_SPEC
from gdf.samplers import (
    SAMPLERS,
    BaseSampler,
    DDIMSampler,
    DDPMSampler,
    DPMSolverPP2MSampler,
    EulerSampler,
    HeunSampler,
    LCMSampler,
)
from gdf.sampling import Sampled
from gdf.scalers import BaseScaler, LERPScaler, VPScaler
from gdf.schedules import (
    BaseSchedule,
    Cosine2Schedule,
    CosineSchedule,
    EDMSampleSchedule,
    InterpolatedSchedule,
    LinearSchedule,
    PiecewiseLinearSchedule,
    RectifiedFlowsSchedule,
    SqrtSchedule,
    StableDiffusionSchedule,
)
from gdf.settings import SamplingSettings
from gdf.targets import BaseTarget, EpsilonTarget, RectifiedFlowsTarget, VTarget, X0Target
from gdf.train_schedules import AdaptiveTrainSchedule, EDMTrainSchedule

__all__ = [
    "AdaptiveLossWeight",
    "AdaptiveTrainSchedule",
    "BaseLossWeight",
    "BaseNoiseCond",
    "BaseSampler",
    "BaseScaler",
    "BaseSchedule",
    "BaseTarget",
    "ComposedLossWeight",
    "ConstantLossWeight",
    "Cosine2Schedule",
    "CosineSchedule",
    "CosineTNoiseCond",
    "DDIMSampler",
    "DDPMSampler",
    "DPMSolverPP2MSampler",
    "DebiasedLossWeight",
    "Diffused",
    "DiscreteNoiseCond",
    "EDMNoiseCond",
    "EDMSampleSchedule",
    "EDMSigmaNoiseCond",
    "EDMTrainSchedule",
    "EpsilonTarget",
    "EulerSampler",
    "GDF",
    "Guidance",
    "HeunSampler",
    "InterpolatedSchedule",
    "LCMSampler",
    "LERPScaler",
    "LinearSchedule",
    "LogSNRNoiseCond",
    "LossBuckets",
    "MinSNRLossWeight",
    "MinSNRPlusOneLossWeight",
    "P2LossWeight",
    "PiecewiseLinearNoiseCond",
    "PiecewiseLinearSchedule",
    "RELEASED_SAMPLING",
    "RELEASED_SPEC",
    "Randomness",
    "RectifiedFlowsNoiseCond",
    "RectifiedFlowsSchedule",
    "RectifiedFlowsTarget",
    "SAMPLERS",
    "SNRLossWeight",
    "SNRPlusOneLossWeight",
    "Sampled",
    "SamplingSettings",
    "SechLossWeight",
    "SigmoidLossWeight",
    "SigmoidNoiseCond",
    "SqrtSchedule",
    "StableDiffusionNoiseCond",
    "StableDiffusionSchedule",
    "TruncatedSNRLossWeight",
    "VPScaler",
    "VTarget",
    "X0Target",
    "build",
    "build_sampler",
    "build_schedule",
    "offset_noise",
    "pyramid_noise",
    "rand",
    "randn",
]
