"""The diffusion that the released Stage B and Stage C were trained with, and how they are sampled."""

from typing import Any

from gdf.settings import SamplingSettings

RELEASED_SPEC: dict[str, Any] = {  # for `gdf.build`
    # Under a shift too, the released weights have seen no log-SNR beyond the unshifted schedule's.
    "schedule": {"name": "CosineSchedule", "clamp_range": [0.0001, 0.9999], "limits_follow_shift": False},
    "input_scaler": {"name": "VPScaler"},
    "target": {"name": "EpsilonTarget"},
    "noise_cond": {"name": "CosineTNoiseCond"},
    "loss_weight": {"name": "P2LossWeight"},
}

RELEASED_SAMPLING = {
    "stage_c": SamplingSettings(steps=20, guidance=4.0, shift=2.0),
    "stage_b": SamplingSettings(steps=10, guidance=1.1, shift=1.0),
}
