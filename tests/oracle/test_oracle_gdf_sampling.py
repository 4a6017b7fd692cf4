"""GDF.sample against the recorded trajectories of the published implementation."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

import gdf
from tests.oracle.gdf_records import Case, build, cases

pytestmark = pytest.mark.oracle


def denoiser(seen: list[Tensor]) -> Callable[..., Tensor]:
    """The model of the recorded trajectories; it keeps the noise conditions that it was given."""

    def model(x: Tensor, r: Tensor, c: Tensor, layers: list[Tensor] | None = None, d: Any = None) -> Tensor:
        seen.append(r)

        def over(values: Tensor) -> Tensor:
            return values.reshape(*values.shape, *[1] * (x.ndim - values.ndim))

        result = (0.1 + 0.3 * over(r)) * x + over(c)
        return result if layers is None else result + 0.5 * over(layers[0]) + 0.25 * over(d["k"])

    return model


def model_inputs(case: Case) -> tuple[dict, dict | None]:
    key = f"traj.{case.name}"
    inputs: dict[str, Any] = {"c": case[f"{key}.c"]}
    unconditional = {"c": case[f"{key}.c_uncond"]} if f"{key}.c_uncond" in case.tensors else None
    if case.case.get("inputs") == "nested":
        inputs |= {"layers": [case[f"{key}.l0"]], "d": {"k": case[f"{key}.d_k"], "k2": case[f"{key}.d_k2"]}}
        unconditional |= {"layers": [case[f"{key}.l0_uncond"]], "d": {"k": case[f"{key}.d_k_uncond"]}}
    return inputs, unconditional


def run(case: Case, seen: list[Tensor]) -> Iterator[gdf.Sampled]:
    spec, key = case.case, f"traj.{case.name}"
    parts = [build(spec[part]) for part in ("schedule", "scaler", "target", "noise_cond")]
    process = gdf.GDF(*parts, gdf.ConstantLossWeight())
    if spec.get("stretch"):
        assert process.setup_limits(**spec["stretch"]) == pytest.approx(spec["stretched_limits"], abs=5e-6)
    inputs, unconditional = model_inputs(case)
    draws = iter([*([] if spec.get("x_init") else [case[f"{key}.x_start"]]), *case[f"{key}.noise"]])
    options = {name: spec[name] for name in ("cfg_t_stop", "cfg_t_start") if name in spec}
    default = spec["sampler"].startswith("default")
    stochastic = default or spec["sampler"] in ("ddpm", "lcm") or spec.get("sampler_params")
    return process.sample(
        denoiser(seen),
        inputs,
        spec["shape"],
        generators=lambda shape: next(draws),
        unconditional_inputs=unconditional,
        sampler=None if default else build([spec["sampler"]]),
        sampler_params=spec.get("sampler_params", {}) | ({"noise_on_last_step": True} if stochastic else {}),
        schedule=build(spec["sample_schedule"]) if "sample_schedule" in spec else None,
        x_init=case[f"{key}.x_start"] if spec.get("x_init") else None,
        cfg_rescale_whole_batch=True,
        **{name: spec[name] for name in ("t_start", "t_end", "timesteps", "cfg", "cfg_rho", "shift")},
        **options,
    )


@pytest.mark.parametrize(("record", "name"), cases("trajectories"))
def test_trajectory(record: int, name: str) -> None:
    case, key, seen = Case("trajectories", record, name), f"traj.{name}", []
    steps = run(case, seen)
    results = [next(steps)]
    for index in range(case.case["timesteps"] - 1):
        changes = dict(case.case.get("send", {}).get(str(index), {}))
        if changes.get("x") == "half":
            changes["x"] = results[-1].x * 0.5
        results.append(steps.send(changes or None))
    assert next(steps, None) is None
    assert [len(condition) for condition in seen] == case.case["batch_passed_to_model"]
    batch = case[f"{key}.model_noise_cond"].shape[1]
    case.check(torch.stack([condition[:batch] for condition in seen]), f"{key}.model_noise_cond")
    for field, values in zip(gdf.Sampled._fields, zip(*results, strict=True), strict=True):
        case.check(torch.stack(values), f"{key}.{field}")
