"""The diffusion that the released Stage B and Stage C were trained with, as plain data for `gdf.build`."""

from typing import Any

RELEASED_SPEC: dict[str, Any] = {
    "schedule": {"name": "CosineSchedule", "clamp_range": [0.0001, 0.9999]},
    "input_scaler": {"name": "VPScaler"},
    "target": {"name": "EpsilonTarget"},
    "noise_cond": {"name": "CosineTNoiseCond"},
    "loss_weight": {"name": "P2LossWeight"},
}
