"""Laws of the noise conditions."""

import math

import pytest
import torch

import gdf

LOG_SNR = torch.linspace(-20, 20, 161, dtype=torch.float64)
TIMES = torch.linspace(0, 1, 101, dtype=torch.float64)
X, Y = [0.0, 0.3, 1.0], [0.99, 0.6, 0.05]
INVERSES = {
    "cosine": (gdf.CosineSchedule(clamp_range=(0, 1), force_limits=False), gdf.CosineTNoiseCond()),
    "stable_diffusion": (gdf.StableDiffusionSchedule(), gdf.StableDiffusionNoiseCond()),
    "piecewise": (gdf.PiecewiseLinearSchedule(X, Y), gdf.PiecewiseLinearNoiseCond(X, Y)),
}
CONDITIONS = [
    gdf.CosineTNoiseCond(),
    gdf.EDMNoiseCond(),
    gdf.EDMSigmaNoiseCond(0.5),
    gdf.SigmoidNoiseCond(),
    gdf.StableDiffusionNoiseCond(),
    gdf.PiecewiseLinearNoiseCond(X, Y),
]


@pytest.mark.parametrize("name", INVERSES)
def test_a_time_condition_is_the_inverse_of_its_schedule(name):
    schedule, condition = INVERSES[name]
    torch.testing.assert_close(condition(schedule(TIMES)), TIMES, atol=1e-9, rtol=0)
    torch.testing.assert_close(condition(schedule(TIMES.float())), TIMES.float(), atol=2e-4, rtol=0)


def test_float32_cosine_time_is_exact_where_the_arc_cosine_is_not():
    log_snr = torch.linspace(8, 14, 50)
    exact = gdf.CosineTNoiseCond()(log_snr.double())
    torch.testing.assert_close(gdf.CosineTNoiseCond()(log_snr).double(), exact, atol=2e-7, rtol=0)


@pytest.mark.parametrize("condition", CONDITIONS, ids=lambda value: type(value).__name__)
def test_more_noise_is_a_higher_number(condition):
    values = condition(LOG_SNR)
    assert (values.diff() <= 0).all() and values[0] > values[-1]
    assert condition(LOG_SNR.bfloat16()).dtype == torch.float32


def test_the_flow_condition_is_the_share_of_the_signal():
    a, _ = gdf.LERPScaler()(LOG_SNR)
    torch.testing.assert_close(gdf.RectifiedFlowsNoiseCond()(LOG_SNR), a)


def test_a_conditions_shift_undoes_the_schedules():
    shifted = gdf.CosineSchedule(shift=3)(TIMES)
    torch.testing.assert_close(
        gdf.EDMNoiseCond(shift=3)(shifted), gdf.EDMNoiseCond()(gdf.CosineSchedule()(TIMES))
    )


@pytest.mark.parametrize("cls", [gdf.CosineTNoiseCond, gdf.SigmoidNoiseCond, gdf.StableDiffusionNoiseCond])
def test_a_clamp_range_given_by_keyword_is_kept(cls):
    values = cls(clamp_range=(0.2, 0.8))(LOG_SNR)
    assert (values.min(), values.max()) == (0.2, 0.8)


def test_the_variance_range_cuts_the_cosine_time():
    values = gdf.CosineTNoiseCond(variance_range=(0.0001, 0.9999))(torch.tensor([-50.0, 50.0]))
    limits = torch.tensor([math.log(1e-4 / 0.9999), math.log(0.9999 / 1e-4)])
    torch.testing.assert_close(values, gdf.CosineTNoiseCond()(limits))


def test_the_published_table_search_takes_the_segment_before():
    exact, published = (gdf.StableDiffusionNoiseCond(extrapolate=flag)(LOG_SNR) for flag in (False, True))
    assert 1e-6 < (exact - published).abs().max() < 1e-3


def test_discrete_steps_are_whole_numbers_in_range():
    condition = gdf.DiscreteNoiseCond(gdf.SigmoidNoiseCond(), steps=10)
    steps = condition(LOG_SNR)
    assert steps.dtype == torch.int64
    assert steps.unique().tolist() == list(range(10))
    assert condition(torch.tensor([0.0])).item() == 5
    ranged = gdf.DiscreteNoiseCond(gdf.EDMNoiseCond(), steps=5, continuous_range=(-1, 1))
    assert ranged(torch.tensor([0.0, 100.0, -100.0])).tolist() == [2, 0, 4]
