"""The diffusion that the released Stage B and Stage C were trained with, as plain data for `gdf.build`."""

from typing import Any

RELEASED_SPEC: dict[str, Any] = {
    # Under a shift too, the released weights have seen no log-SNR beyond the unshifted schedule's.
    "schedule": {"name": "CosineSchedule", "clamp_range": [0.0001, 0.9999], "limits_follow_shift": False},
    "input_scaler": {"name": "VPScaler"},
    "target": {"name": "EpsilonTarget"},
    "noise_cond": {"name": "CosineTNoiseCond"},
    "loss_weight": {"name": "P2LossWeight"},
}
