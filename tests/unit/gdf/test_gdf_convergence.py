"""Solvers against the exact probability flow of a Gaussian mixture: orders, and errors at few steps."""

import math

import pytest
import torch
from torch import Tensor

import gdf

SCHEDULES = {
    "linear": gdf.LinearSchedule((-8, 8)),
    "cosine": gdf.CosineSchedule(),
    "edm": gdf.EDMSampleSchedule(),
    "rectified_flows": gdf.RectifiedFlowsSchedule((-9, 9)),
    "stable_diffusion": gdf.StableDiffusionSchedule(),
}
SCALERS = {"vp": gdf.VPScaler(), "lerp": gdf.LERPScaler()}
TARGETS = {
    "epsilon": gdf.EpsilonTarget(),
    "x0": gdf.X0Target(),
    "v": gdf.VTarget(),
    "flow": gdf.RectifiedFlowsTarget(),
}
SOLVERS = {
    "ddim": (gdf.DDIMSampler(), 1),
    "euler": (gdf.EulerSampler(), 1),
    "heun": (gdf.HeunSampler(), 2),
    "dpm-solver++(2m)": (gdf.DPMSolverPP2MSampler(), 2),
}
LINEAR, VP, V = SCHEDULES["linear"], SCALERS["vp"], TARGETS["v"]


def starts() -> Tensor:
    """500 values spread as a normal distribution, [5, 1, 10, 10]."""
    return torch.special.ndtri(torch.linspace(0.002, 0.998, 500, dtype=torch.float64)).view(5, 1, 10, 10)


def rms_error(mixture, sampler, steps, schedule=LINEAR, scaler=VP, target=V, **options) -> float:
    """Root mean square distance of the sampled values from where the exact flow ends."""
    process = gdf.GDF(schedule, scaler, target, gdf.LogSNRNoiseCond(), gdf.ConstantLossWeight())
    ends = schedule(torch.tensor([1.0, 0.0], dtype=torch.float64))
    a, b = (value[0] for value in scaler(ends))
    x_init = starts() * (a**2 + b**2).sqrt()
    options |= {"x_init": x_init, "sampler": sampler, "timesteps": steps, "cfg": None, "dtype": torch.float64}
    *_, last = process.sample(mixture.model(process), {}, x_init.shape, **options)
    truth = mixture.flow(x_init, scaler, ends.tolist())
    return (last.x - truth).square().mean().sqrt().item()


@pytest.mark.parametrize("scaler", SCALERS)
@pytest.mark.parametrize("solver", SOLVERS)
def test_order_of_convergence(mixture, solver, scaler):
    sampler, order = SOLVERS[solver]
    coarse, fine = (rms_error(mixture, sampler, steps, scaler=SCALERS[scaler]) for steps in (60, 120))
    assert math.log2(coarse / fine) == pytest.approx(order, abs=0.15)


@pytest.mark.parametrize("solver", ["heun", "dpm-solver++(2m)"])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_second_order_solvers_win_on_every_schedule(mixture, schedule, solver):
    ddim = rms_error(mixture, gdf.DDIMSampler(), 40, SCHEDULES[schedule])
    assert rms_error(mixture, SOLVERS[solver][0], 40, SCHEDULES[schedule]) < 0.65 * ddim


@pytest.mark.parametrize("schedule", ["linear", "cosine", "edm", "rectified_flows"])
def test_dpm_solver_at_12_steps_is_nearer_than_ddim_at_30(mixture, schedule):
    few = rms_error(mixture, gdf.DPMSolverPP2MSampler(), 12, SCHEDULES[schedule])
    assert few < rms_error(mixture, gdf.DDIMSampler(), 30, SCHEDULES[schedule])


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("solver", SOLVERS)
def test_the_target_makes_no_difference(mixture, solver, target):
    errors = [rms_error(mixture, SOLVERS[solver][0], 8, target=chosen) for chosen in (V, TARGETS[target])]
    assert errors[0] == pytest.approx(errors[1], rel=1e-9)


def test_the_bound_on_extrapolation_helps_growing_steps(mixture):
    schedule = SCHEDULES["edm"]
    bounded = rms_error(mixture, gdf.DPMSolverPP2MSampler(), 12, schedule)
    assert bounded < rms_error(mixture, gdf.DPMSolverPP2MSampler(max_ratio=math.inf), 12, schedule)


def test_a_first_order_last_step_helps_at_few_steps(mixture):
    schedule = SCHEDULES["cosine"]
    paper = {"max_ratio": math.inf}
    final = rms_error(mixture, gdf.DPMSolverPP2MSampler(**paper), 12, schedule)
    assert final < rms_error(
        mixture, gdf.DPMSolverPP2MSampler(lower_order_final=False, **paper), 12, schedule
    )
