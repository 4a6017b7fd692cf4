"""Laws of scalers and targets, alone and in GDF.diffuse and GDF.undiffuse."""

import pytest
import torch

import gdf

LOG_SNR = torch.linspace(-100, 100, 401, dtype=torch.float64)
SCALERS = [gdf.VPScaler, gdf.LERPScaler]
TARGETS = [gdf.EpsilonTarget, gdf.X0Target, gdf.VTarget, gdf.RectifiedFlowsTarget]


def process(scaler=gdf.VPScaler, target=gdf.VTarget, **options) -> gdf.GDF:
    parts = (gdf.CosineSchedule(), scaler(), target(), gdf.CosineTNoiseCond(), gdf.P2LossWeight())
    return gdf.GDF(*parts, **options)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("scaler", SCALERS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_the_ratio_of_signal_and_noise_is_the_log_snr(scaler, dtype):
    log_snr = LOG_SNR[150:251].to(dtype)
    a, b = scaler()(log_snr)
    assert a.dtype == torch.promote_types(dtype, torch.float32)
    torch.testing.assert_close(2 * (a.log() - b.log()), log_snr.to(a), atol=1e-5, rtol=1e-6)


def test_the_sums_that_the_scalers_keep():
    for log_snr in (LOG_SNR, LOG_SNR.float()):
        a, b = gdf.VPScaler()(log_snr)
        torch.testing.assert_close(a**2 + b**2, torch.ones_like(a))
        a, b = gdf.LERPScaler()(log_snr)
        torch.testing.assert_close(a + b, torch.ones_like(a))
        assert gdf.LERPScaler()(torch.zeros(1))[0].item() == 0.5


@pytest.mark.parametrize("scaler", SCALERS)
@pytest.mark.parametrize(("stretch_max", "stretch_min"), [(True, True), (True, False), (False, True)])
def test_stretching_reaches_pure_noise_and_pure_signal(scaler, stretch_max, stretch_min):
    stretched = process(scaler)
    stretched.setup_limits(stretch_max, stretch_min, shift=2)
    ends = stretched.schedule(torch.tensor([1.0, 0.0], dtype=torch.float64), shift=2)
    (a_noisy, a_clean), (b_noisy, b_clean) = (v.tolist() for v in stretched.input_scaler(ends))
    assert (a_noisy, b_noisy) == pytest.approx((0, 1), abs=1e-12 if stretch_max else 0.04)
    assert (a_clean, b_clean) == pytest.approx((1, 0), abs=1e-12 if stretch_min else 0.04)
    assert (a_noisy > 0.004) != stretch_max and (b_clean > 0.004) != stretch_min


@pytest.mark.parametrize("stretch", [False, True])
@pytest.mark.parametrize("scaler", SCALERS)
@pytest.mark.parametrize("target", TARGETS)
def test_undiffuse_inverts_diffuse(target, scaler, stretch):
    made = process(scaler, target)
    if stretch:
        made.setup_limits()
    x0 = torch.randn(5, 3, 4, 4, dtype=torch.float64, generator=generator())
    times = torch.linspace(0.05, 0.95, 5, dtype=torch.float64)
    noised = made.diffuse(x0, t=times, generators=generator(1))
    x0_again, noise_again = made.undiffuse(noised.noised, noised.logSNR, noised.target)
    torch.testing.assert_close(x0_again, x0)
    torch.testing.assert_close(noise_again, noised.noise)


def test_the_published_flow_target_is_only_right_on_the_straight_path():
    x0, noise, log_snr = torch.ones(1), torch.zeros(1), torch.zeros(1)
    for scaler, agrees in ((gdf.LERPScaler(), True), (gdf.VPScaler(), False)):
        a, b = scaler(log_snr)
        estimates = [
            target.x0(a * x0 + b * noise, target(x0, noise, log_snr, a, b), log_snr, a, b)
            for target in (gdf.RectifiedFlowsTarget(assume_straight=True), gdf.RectifiedFlowsTarget())
        ]
        assert torch.allclose(*estimates) == agrees
        torch.testing.assert_close(estimates[1], x0)


@pytest.mark.parametrize("target", TARGETS)
def test_estimates_are_finite_without_any_signal_or_noise(target):
    made = process(target=target)
    made.setup_limits()
    ends = made.schedule(torch.tensor([1.0, 0.0]))
    x0, noise = made.undiffuse(torch.ones(2, 1, 2, 2), ends, torch.ones(2, 1, 2, 2))
    assert x0.isfinite().all() and noise.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_diffused_dtypes_and_shapes(dtype):
    made = process(offset_noise=0.1)
    result = made.diffuse(torch.ones(3, 2, 5, 5, dtype=dtype), generators=generator())
    assert all(value.shape == (3, 2, 5, 5) and value.dtype == dtype for value in result[:3])
    control = torch.promote_types(dtype, torch.float32)
    assert all(value.shape == (3,) and value.dtype == control for value in result[3:])


def test_diffuse_works_where_x0_is():
    result = process(offset_noise=0.1).diffuse(torch.ones(3, 2, 5, 5, device="meta"), generators=generator())
    assert all(value.device.type == "meta" for value in result)


def test_diffuse_takes_what_is_given_and_draws_the_rest_by_picture():
    made = process(offset_noise=0.1)
    x0 = torch.randn(3, 2, 4, 4, generator=generator())
    whole = made.diffuse(x0, generators=[generator(seed) for seed in range(3)])
    for row in range(3):
        alone = made.diffuse(x0[row : row + 1], generators=[generator(row)])
        assert all(
            torch.equal(part[row], single[0]) for part, single in zip(whole[:3], alone[:3], strict=True)
        )
    noise, times, offset = torch.zeros_like(x0), torch.full((3,), 0.5), torch.ones(3, 2, 1, 1)
    given = made.diffuse(x0, noise, times, offset=offset)
    torch.testing.assert_close(given.noise, torch.full_like(x0, 0.1))
    with pytest.raises(ValueError, match="generators"):
        made.diffuse(x0, noise, times)


def test_shift_and_loss_shift():
    made = process()
    x0, noise, times = torch.ones(1, 1, 2, 2), torch.zeros(1, 1, 2, 2), torch.full((1,), 0.4)
    result = made.diffuse(x0, noise, times, shift=2, loss_shift=2)
    plain = made.diffuse(x0, noise, times)
    torch.testing.assert_close(result.logSNR, made.schedule(times, shift=2))
    torch.testing.assert_close(result.loss_weight, plain.loss_weight)  # the one shift undoes the other
