"""Laws of the schedules."""

import math

import pytest
import torch

import gdf

SCHEDULES = {
    "cosine": gdf.CosineSchedule(),
    "cosine_norm": gdf.CosineSchedule(norm_instead=True),
    "cosine2": gdf.Cosine2Schedule(),
    "sqrt": gdf.SqrtSchedule(),
    "rectified_flows": gdf.RectifiedFlowsSchedule(),
    "edm_sample": gdf.EDMSampleSchedule(),
    "edm_train": gdf.EDMTrainSchedule(),
    "linear": gdf.LinearSchedule(),
    "piecewise": gdf.PiecewiseLinearSchedule([0.0, 0.3, 1.0], [0.99, 0.6, 0.05]),
    "stable_diffusion": gdf.StableDiffusionSchedule(),
    "adaptive_train": gdf.AdaptiveTrainSchedule(buckets=20),
    "interpolated": gdf.InterpolatedSchedule(gdf.CosineSchedule(), gdf.LinearSchedule(), (2.0, 1.0)),
}
TIMES = torch.linspace(0, 1, 101, dtype=torch.float64)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def every_schedule(function):
    return pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)(function)


@every_schedule
def test_log_snr_falls_with_time(schedule):
    log_snr = schedule(TIMES)
    assert log_snr.isfinite().all()
    assert (log_snr.diff() <= 0).all() and (log_snr[10:90].diff() < 0).all()


@every_schedule
def test_times_outside_the_unit_interval_are_its_ends(schedule):
    assert torch.equal(schedule(torch.tensor([-0.5, 1.5])), schedule(torch.tensor([0.0, 1.0])))


@every_schedule
def test_a_shift_lowers_log_snr_everywhere(schedule):
    torch.testing.assert_close(schedule(TIMES, shift=3), schedule(TIMES) - 2 * math.log(3))


@every_schedule
def test_float64_is_kept_and_half_precision_becomes_float32(schedule):
    assert schedule(TIMES).dtype == torch.float64
    times = TIMES.bfloat16()
    assert schedule(times).dtype == torch.float32
    torch.testing.assert_close(schedule(times), schedule(times.float()))
    torch.testing.assert_close(schedule(TIMES.float()).double(), schedule(TIMES), atol=2e-3, rtol=2e-3)


@every_schedule
def test_draws_come_from_the_generators_and_stay_within_the_limits(schedule):
    drawn = schedule(64, generators=generator())
    assert drawn.shape == (64,) and drawn.isfinite().all()
    assert torch.equal(drawn, schedule(64, generators=generator()))
    singles = [schedule(1, generators=[generator(seed)]) for seed in range(3)]
    assert torch.equal(schedule(3, generators=[generator(seed) for seed in range(3)]), torch.cat(singles))
    if schedule.limits is not None:
        low, high = schedule.limits
        assert (drawn >= low - 1e-5).all() and (drawn <= high + 1e-5).all()
    with pytest.raises(ValueError, match="generators"):
        schedule(64)


@every_schedule
def test_limits_are_the_ends(schedule):
    if schedule.limits is not None:
        torch.testing.assert_close(
            schedule(TIMES[[-1, 0]]), torch.tensor(schedule.limits, dtype=torch.float64)
        )


def test_published_limits_stay_where_they_are_under_a_shift():
    fixed = gdf.CosineSchedule(limits_follow_shift=False)
    assert fixed(torch.ones(1), shift=2).item() == pytest.approx(fixed.limits[0])
    assert gdf.CosineSchedule()(torch.ones(1), shift=2).item() == pytest.approx(
        fixed.limits[0] - 2 * math.log(2)
    )


def test_own_shift_is_the_shift_of_a_call():
    torch.testing.assert_close(gdf.LinearSchedule(shift=2.5)(TIMES), gdf.LinearSchedule()(TIMES, shift=2.5))


def test_cosine_is_the_papers_formula():
    angle = (TIMES + 0.008) / 1.008 * math.pi / 2
    variance = (angle.cos() ** 2 / angle[0].cos() ** 2).clamp(0.0001, 0.9999)
    torch.testing.assert_close(gdf.CosineSchedule()(TIMES), variance.logit(), atol=1e-8, rtol=1e-8)


def test_float32_cosine_is_exact_near_the_ends():
    times = torch.tensor([0.0025, 0.004, 0.01, 0.99, 0.993])
    torch.testing.assert_close(
        gdf.CosineSchedule()(times), gdf.CosineSchedule()(times.double()).float(), rtol=2e-6, atol=0
    )


@pytest.mark.parametrize("s", [0.0001, 0.008, 0.1])
def test_norm_instead_never_gives_nan(s):
    for clamp_range in ((0.0001, 0.9999), (0, 1), (0.01, 0.9)):
        for cls in (gdf.SqrtSchedule, gdf.CosineSchedule):
            log_snr = cls(s, clamp_range, norm_instead=True)(TIMES.float())
            assert log_snr.isfinite().all()


def test_the_edm_schedules_are_the_papers():
    sigma = (-gdf.EDMSampleSchedule()(TIMES) / 2).exp()
    torch.testing.assert_close(sigma[[0, -1]], torch.tensor([0.002, 80.0], dtype=torch.float64))
    torch.testing.assert_close((sigma ** (1 / 7)).diff(), (sigma ** (1 / 7)).diff().mean().expand(100))
    drawn = gdf.EDMTrainSchedule()(40000, generators=generator())
    assert drawn.mean().item() == pytest.approx(2.4, abs=0.05)  # -2 P_mean
    assert drawn.std().item() == pytest.approx(2.4, abs=0.05)  # 2 P_std
    assert gdf.EDMTrainSchedule()(torch.tensor([0.5])).item() == pytest.approx(2.4)


def test_discrete_steps():
    schedule = gdf.LinearSchedule(discrete_steps=11)
    assert schedule(torch.tensor([3, 10])).tolist() == pytest.approx([4.0, -10.0])
    assert schedule(torch.tensor([0.31])).item() == pytest.approx(4.0)
    with pytest.raises(ValueError, match="discrete_steps"):
        gdf.LinearSchedule()(torch.tensor([3]))


def test_piecewise_linear_goes_through_its_points():
    variance = SCHEDULES["piecewise"](torch.tensor([0.0, 0.3, 0.65, 1.0])).sigmoid()
    torch.testing.assert_close(variance, torch.tensor([0.99, 0.6, 0.325, 0.05]))


def test_the_adaptive_schedule_draws_buckets_by_their_loss():
    schedule = gdf.AdaptiveTrainSchedule((-4, 4), buckets=4, min_probs=0.5)
    schedule.apply_statistics(torch.tensor([[0.0, 0.0, 3.5, 0.0], [0.0, 0.0, 1.0, 0.0]]), beta=0.0)
    drawn = schedule(20000, generators=generator())
    shares = torch.histc(drawn, bins=4, min=-4, max=4) / 20000
    torch.testing.assert_close(shares, torch.tensor([1.5, 1.5, 4.0, 1.5]) / 8.5, atol=0.02, rtol=0)


def test_a_log_snr_out_of_the_adaptive_schedules_range_counts_for_the_nearest_bucket():
    schedule = gdf.AdaptiveTrainSchedule((-4, 4), buckets=4)
    schedule.update_buckets(torch.tensor([-9.0, 9.0]), torch.tensor([3.0, 5.0]), beta=0.5)
    assert schedule.bucket_losses.tolist() == pytest.approx([2.0, 1.0, 1.0, 3.0])


def test_schedules_can_be_made_while_the_default_device_is_meta():
    with torch.device("meta"):
        made = [gdf.CosineSchedule(), gdf.StableDiffusionSchedule(), gdf.AdaptiveTrainSchedule()]
        made.append(gdf.PiecewiseLinearSchedule([0.0, 1.0], [0.9, 0.1]))
    assert all(schedule(TIMES).isfinite().all() for schedule in made)
