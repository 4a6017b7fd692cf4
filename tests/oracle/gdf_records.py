"""The recorded numbers of the published gdf: found by their content, and what they describe, built."""

import functools
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

import gdf

FOLDER = Path(os.environ.get("KASKADE_ORACLE") or Path(__file__).parent.parent / "golden")
SECTIONS = {"schedules", "train_draws", "scalers", "stretched", "targets", "noise_conds", "loss_weights"}
SECTIONS |= {"adaptive", "trajectories"}


def schedule(cls: type) -> Callable[..., gdf.BaseSchedule]:
    return functools.partial(cls, limits_follow_shift=False)


def cosine_t(
    s: float = 0.008, variance_range: tuple = (0, 1), clamp_range: Any = None, **rest: Any
) -> gdf.BaseNoiseCond:
    return gdf.CosineTNoiseCond(
        s, variance_range, **rest
    )  # published error: the keyword clamp_range is ignored


def edm_train(mu: float = -1.2, **rest: Any) -> gdf.BaseSchedule:
    return gdf.EDMTrainSchedule(mu=-mu, **rest)  # published error: the sign of the mean


KINDS: dict[str, Callable[..., Any]] = {
    "cosine": schedule(gdf.CosineSchedule),
    "cosine2": schedule(gdf.Cosine2Schedule),
    "sqrt": schedule(gdf.SqrtSchedule),
    "rectified_flows": schedule(gdf.RectifiedFlowsSchedule),
    "edm_sample": schedule(gdf.EDMSampleSchedule),
    "edm_train": edm_train,
    "linear": schedule(gdf.LinearSchedule),
    "stable_diffusion": schedule(gdf.StableDiffusionSchedule),
    "adaptive_train": gdf.AdaptiveTrainSchedule,
    "interpolated": schedule(gdf.InterpolatedSchedule),
    "vp": gdf.VPScaler,
    "lerp": gdf.LERPScaler,
    "epsilon": gdf.EpsilonTarget,
    "x0": gdf.X0Target,
    "v": gdf.VTarget,
    "rf": functools.partial(gdf.RectifiedFlowsTarget, assume_straight=True),
    "cosine_t": cosine_t,
    "edm": gdf.EDMNoiseCond,
    "edm_sigma": gdf.EDMSigmaNoiseCond,
    "sigmoid": gdf.SigmoidNoiseCond,
    "logsnr": gdf.LogSNRNoiseCond,
    "rf_cond": gdf.RectifiedFlowsNoiseCond,
    "sd_cond": functools.partial(gdf.StableDiffusionNoiseCond, extrapolate=True),
    "discrete": gdf.DiscreteNoiseCond,
    "constant": gdf.ConstantLossWeight,
    "snr": gdf.SNRLossWeight,
    "p2": gdf.P2LossWeight,
    "snr_plus_one": gdf.SNRPlusOneLossWeight,
    "min_snr": gdf.MinSNRLossWeight,
    "min_snr_plus_one": gdf.MinSNRPlusOneLossWeight,
    "truncated_snr": gdf.TruncatedSNRLossWeight,
    "sech": gdf.SechLossWeight,
    "debiased": gdf.DebiasedLossWeight,
    "sigmoid_w": gdf.SigmoidLossWeight,
    "adaptive": gdf.AdaptiveLossWeight,
    "composed": gdf.ComposedLossWeight,
    "ddim": gdf.DDIMSampler,
    "ddpm": gdf.DDPMSampler,
    "lcm": gdf.LCMSampler,
}


def build(node: list) -> Any:
    """[kind, keywords, positional arguments] as gdf.json writes an object."""
    kind, keywords, args = [*node, *[{}, []][len(node) - 1 :]]
    return KINDS[kind](*args, **{name: build_value(value) for name, value in keywords.items()})


def build_value(value: Any) -> Any:
    if isinstance(value, list) and value and isinstance(value[0], str):
        return build(value)
    if isinstance(value, list) and value and isinstance(value[0], list):
        return [build(item) for item in value]
    return value


@functools.cache
def records() -> list[tuple[dict, dict[str, Tensor]]]:
    """The pairs of description and tensors in the folder, recognised by their content."""
    tensors = []
    for path in sorted(FOLDER.rglob("*.safetensors")):
        with safe_open(path, "pt") as file:
            if "grid.logsnr" in file.keys():  # noqa: SIM118 (not a dictionary)
                tensors.append((path, file.metadata() or {}))
    specs = {path: json.loads(path.read_text()) for path in sorted(FOLDER.rglob("*.json"))}
    specs = {path: spec for path, spec in specs.items() if isinstance(spec, dict) and "trajectories" in spec}
    assert len(specs) == len(tensors), "every gdf description needs its tensors"

    def spec_of(path: Path, metadata: dict) -> dict:
        named = [path.parent / metadata.get("spec_file", ""), path.with_suffix(".json"), *specs]
        return specs[next(name for name in named if name in specs)]

    return [(spec_of(path, metadata), load_file(path)) for path, metadata in tensors]


def cases(section: str) -> list:
    found = [(record, name) for record, (spec, _) in enumerate(records()) for name in spec[section]]
    return [pytest.param(*case, id=f"{case[1]}-{case[0]}" if case[0] else case[1]) for case in found]


class Case:
    """One named case of a section, with its record's tensors and tolerances."""

    def __init__(self, section: str, record: int, name: str):
        self.spec, self.tensors = records()[record]
        self.case, self.name = self.spec[section][name], name

    def __getitem__(self, key: str) -> Tensor:
        return self.tensors[key]

    def check(self, actual: Tensor, key: str, mask: Tensor | None = None) -> None:
        """Agreement with the recorded float32 numbers, within ten times their own rounding error."""
        expected, floor = self.tensors[key], self.spec["fp64_floor"].get(key, {"abs": 0.0})
        mask = torch.ones_like(expected, dtype=torch.bool) if mask is None else mask
        atol = max(2e-6, 10 * (floor["abs"] or 0.0))
        torch.testing.assert_close(
            actual[mask].to(expected.dtype), expected[mask], atol=atol, rtol=1e-6, msg=key_of(key)
        )

    def check_exact(self, actual: Tensor, key: str, mask: Tensor, atol: float = 1e-8) -> None:
        """Agreement in float64, where the record has it, wherever the float32 record is finite."""
        if f"f64.{key}" in self.tensors:
            mask = mask & self.tensors[key].isfinite()
            torch.testing.assert_close(
                actual[mask], self[f"f64.{key}"][mask], atol=atol, rtol=1e-8, msg=key_of(key)
            )


def key_of(key: str) -> Callable[[str], str]:
    return lambda message: f"{key}: {message}"
