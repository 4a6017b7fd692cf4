"""Laws of the loss weights and of the loss buckets."""

import math

import pytest
import torch

import gdf

LOG_SNR = torch.linspace(-12, 12, 97, dtype=torch.float64)
SNR = LOG_SNR.exp()


def test_relations_between_the_weights():
    p2, min_snr, plus_one = gdf.P2LossWeight(), gdf.MinSNRLossWeight(), gdf.SNRPlusOneLossWeight()
    torch.testing.assert_close(p2(LOG_SNR) * plus_one(LOG_SNR), torch.ones_like(LOG_SNR))
    torch.testing.assert_close(gdf.P2LossWeight(k=0, s=0.5)(LOG_SNR), gdf.DebiasedLossWeight()(LOG_SNR))
    torch.testing.assert_close(p2(LOG_SNR), gdf.SigmoidLossWeight(s=-1)(LOG_SNR))
    torch.testing.assert_close(min_snr(LOG_SNR), gdf.SNRLossWeight()(LOG_SNR, clamp_range=(0, 5)))
    torch.testing.assert_close(gdf.TruncatedSNRLossWeight(1)(LOG_SNR) * gdf.MinSNRLossWeight(1)(LOG_SNR), SNR)
    torch.testing.assert_close(gdf.MinSNRPlusOneLossWeight(9)(LOG_SNR), plus_one(LOG_SNR, clamp_range=(0, 9)))
    torch.testing.assert_close(gdf.SechLossWeight(1)(LOG_SNR), 2 * SNR / (1 + SNR**2))
    assert (gdf.ConstantLossWeight(3)(LOG_SNR) == 3).all()


def test_a_weights_shift_undoes_the_schedules():
    torch.testing.assert_close(
        gdf.P2LossWeight()(LOG_SNR - 2 * math.log(2), shift=2), gdf.P2LossWeight()(LOG_SNR)
    )


def test_half_precision_becomes_float32():
    assert gdf.P2LossWeight()(LOG_SNR.bfloat16()).dtype == torch.float32
    assert gdf.AdaptiveLossWeight()(LOG_SNR.bfloat16()).dtype == torch.float32
    assert gdf.AdaptiveLossWeight()(LOG_SNR).dtype == torch.float64


def test_composed_is_a_quotient_of_products():
    p2, snr = gdf.P2LossWeight(), gdf.SNRLossWeight()
    composed = gdf.ComposedLossWeight(div=[snr, p2], mul=p2)
    torch.testing.assert_close(composed(LOG_SNR), 1 / SNR)
    assert composed.parts() == [p2, snr, p2]


def buckets(**options) -> gdf.AdaptiveLossWeight:
    return gdf.AdaptiveLossWeight((-4, 4), buckets=6, **options)


def test_the_adaptive_weight_makes_every_loss_count_alike():
    weight = buckets()
    log_snr = torch.tensor([-9.0, -3.0, -1.0, 1.0, 3.0, 9.0])  # one per bucket
    losses = torch.tensor([0.1, 0.5, 1.0, 2.0, 4.0, 8.0])
    for _ in range(60):
        weight.update_buckets(log_snr, losses, beta=0.5)
    torch.testing.assert_close(weight(log_snr) * losses, torch.ones(6))


def test_weights_stay_in_their_range():
    weight = buckets(weight_range=(0.5, 2.0))
    weight.update_buckets(torch.tensor([-1.0, 1.0]), torch.tensor([1e-6, 1e6]), beta=0.0)
    assert weight(torch.tensor([-1.0, 1.0])).tolist() == [2.0, 0.5]


def test_every_loss_of_a_bucket_counts_in_any_order():
    together, reverse, one_by_one = buckets(), buckets(), buckets()
    log_snr, losses = torch.full((3,), 1.0), torch.tensor([1.0, 5.0, 9.0])
    together.update_buckets(log_snr, losses, beta=0.9)
    reverse.update_buckets(log_snr, losses.flip(0), beta=0.9)
    for _ in range(3):  # as many updates with their mean
        one_by_one.update_buckets(log_snr[:1], losses.mean()[None], beta=0.9)
    torch.testing.assert_close(together.bucket_losses, reverse.bucket_losses)
    torch.testing.assert_close(together.bucket_losses, one_by_one.bucket_losses)


def test_statistics_of_parts_add_up_to_those_of_the_whole():
    generator = torch.Generator().manual_seed(0)
    log_snr, losses = 10 * torch.randn(64, generator=generator), torch.rand(64, generator=generator)
    whole, parts = buckets(), buckets()
    whole.update_buckets(log_snr, losses)
    parts.apply_statistics(
        sum(parts.bucket_statistics(*part) for part in zip(log_snr.chunk(4), losses.chunk(4), strict=True))
    )
    torch.testing.assert_close(whole.bucket_losses, parts.bucket_losses)


def test_the_weight_does_not_change_before_the_statistics_are_applied():
    weight = buckets()
    before = weight(LOG_SNR)
    weight.bucket_statistics(LOG_SNR, torch.full_like(LOG_SNR, 7.0))
    assert torch.equal(weight(LOG_SNR), before)


def test_losses_that_are_not_finite_are_left_out():
    weight = buckets()
    weight.update_buckets(torch.tensor([-1.0, -1.0, 1.0]), torch.tensor([math.nan, 3.0, math.inf]), beta=0.0)
    assert weight.bucket_losses.tolist() == [1, 1, 3, 1, 1, 1]


def test_gradients_do_not_flow_into_the_buckets():
    weight = buckets()
    weight.update_buckets(torch.tensor([1.0]), torch.tensor([2.0], requires_grad=True))
    assert not weight.bucket_losses.requires_grad


def test_the_state_can_be_stored():
    weight, other = buckets(), buckets()
    weight.update_buckets(LOG_SNR, LOG_SNR.abs())
    other.load_state_dict(weight.state_dict())
    weight_before = weight(LOG_SNR)
    weight.update_buckets(LOG_SNR, LOG_SNR.abs())
    assert torch.equal(other(LOG_SNR), weight_before)
    with pytest.raises(ValueError, match="6 here, 300 in the stored state"):
        other.load_state_dict(gdf.AdaptiveLossWeight().state_dict())


def test_a_process_names_its_adaptive_parts():
    adaptive, schedule = buckets(), gdf.AdaptiveTrainSchedule()
    composed = gdf.ComposedLossWeight(mul=[gdf.P2LossWeight(), adaptive])
    parts = (gdf.VPScaler(), gdf.VTarget(), gdf.EDMNoiseCond())
    assert gdf.GDF(schedule, *parts, composed).adaptive_parts() == {
        "schedule": schedule,
        "loss_weight.1": adaptive,
    }
    assert gdf.GDF(gdf.CosineSchedule(), *parts, adaptive).adaptive_parts() == {"loss_weight": adaptive}
