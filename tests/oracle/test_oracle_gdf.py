"""gdf against the recorded numbers of the published implementation: its parts, training noise and losses."""

import pytest
import torch
from torch import Tensor

import gdf
from tests.oracle.gdf_records import SECTIONS, Case, build, cases, records

pytestmark = pytest.mark.oracle


def everywhere(values: Tensor) -> Tensor:
    return torch.ones_like(values, dtype=torch.bool)


def not_zero(logsnr: Tensor) -> Tensor:
    """Without log-SNR 0, where the published LERP formula is 0 / 0 and takes about 0.5001."""
    return logsnr != 0


@pytest.mark.parametrize(("record", "name"), cases("schedules"))
def test_schedule(record: int, name: str) -> None:
    case = Case("schedules", record, name)
    made = build(case.case["build"])
    if case.case["limits"] is None:
        assert made.limits is None
    else:
        atol = max(2e-6, 10 * case.spec["fp64_floor"][case.case["calls"][0]["key"]]["abs"])
        assert made.limits == pytest.approx(case.case["limits"], abs=atol, rel=1e-6)
    for call in case.case["calls"]:
        times = case["grid.t_long"][: len(case[call["key"]])] if "long" in call["t"] else case["grid.t"]
        case.check(made(times, shift=call["shift"]), call["key"])
        exact = made(times.double(), shift=call["shift"])
        case.check_exact(exact, call["key"], everywhere(times), atol=5e-6)  # its limits are float32


@pytest.mark.parametrize(("record", "name"), cases("train_draws"))
def test_training_draw(record: int, name: str) -> None:
    case = Case("train_draws", record, name)
    source = case[case.case.get("uniforms") or case.case["normals"]]
    made = build(case.case["build"])
    case.check(made(len(source), generators=lambda shape: source), case.case["key"])
    if "shift2" in case.case:
        case.check(made(len(source), shift=2, generators=lambda shape: source), case.case["shift2"])


@pytest.mark.parametrize(("record", "name"), cases("scalers"))
def test_scaler(record: int, name: str) -> None:
    case = Case("scalers", record, name)
    logsnr = case[case.case["logsnr"]]
    mask = not_zero(logsnr)
    for letter, value, exact in zip("ab", build([name])(logsnr), build([name])(logsnr.double()), strict=True):
        case.check(value, case.case[letter], mask)
        case.check_exact(exact, case.case[letter], mask)
        assert name != "lerp" or (value[~mask] == 0.5).all()


@pytest.mark.parametrize(("record", "name"), cases("stretched"))
def test_stretched_scaler(record: int, name: str) -> None:
    case = Case("stretched", record, name)
    scaler = build([case.case["scaler"]])
    options = {key: case.case[key] for key in ("stretch_max", "stretch_min", "shift")}
    limits = scaler.setup_limits(build(case.case["schedule"]), **options)
    assert limits == pytest.approx(case.case["limits_min_a_max_a_min_b_max_b"], abs=5e-6)
    logsnr = case["grid.logsnr"]
    for letter, value in zip("ab", scaler(logsnr), strict=True):
        case.check(value, f"{name}.{letter}", not_zero(logsnr))


@pytest.mark.parametrize(("record", "name"), cases("targets"))
def test_diffuse_and_undiffuse(record: int, name: str) -> None:
    case = Case("targets", record, name)
    spec = case.case
    parts = [build([spec[part]]) for part in ("scaler", "target")]
    process = gdf.GDF(
        build(spec["schedule"]),
        *parts,
        build(spec["noise_cond"]),
        build(spec["loss_weight"]),
        spec["offset_noise"],
    )
    x0, epsilon, t, offset = (case[f"target.in.{key}"] for key in ("x0", "eps", "t", "offset"))
    result = process.diffuse(x0, epsilon, t, spec["shift"], spec["loss_shift"], offset)
    keys = ("noised", "epsilon", "target", "logsnr", "noise_cond", "loss_weight")
    for key, value in zip(keys, result, strict=True):
        case.check(value, f"{name}.{key}")
    for kind, prediction in (("undiffused", case["target.in.pred"]), ("roundtrip", result.target)):
        estimates = process.undiffuse(result.noised, result.logSNR, prediction)
        for key, value in zip(("x0", "epsilon"), estimates, strict=True):
            case.check(value, f"{name}.{kind}_{key}")


@pytest.mark.parametrize(("record", "name"), cases("noise_conds"))
def test_noise_condition(record: int, name: str) -> None:
    case = Case("noise_conds", record, name)
    made, logsnr, key = build(case.case["build"]), case["grid.logsnr"], case.case["key"]
    if isinstance(made, gdf.DiscreteNoiseCond):
        low, high = made.continuous_range
        steps = (made.noise_cond(logsnr.double()) - low) / (high - low) * made.steps
        near_whole = (steps - steps.round()).abs() < 1e-3
        difference = (made(logsnr) - case[key]).abs()
        assert (difference <= near_whole.to(difference)).all()
        return
    mask = not_zero(logsnr) if isinstance(made, gdf.RectifiedFlowsNoiseCond) else everywhere(logsnr)
    case.check(made(logsnr), key, mask)
    case.check_exact(made(logsnr.double()), key, mask)


@pytest.mark.parametrize(("record", "name"), cases("loss_weights"))
def test_loss_weight(record: int, name: str) -> None:
    case = Case("loss_weights", record, name)
    made = build(case.case["build"])
    for call in case.case["calls"]:
        options = {key: call[key] for key in ("shift", "clamp_range") if key in call}
        case.check(made(case["grid.logsnr"], **options), call["key"])


@pytest.mark.parametrize(("record", "name"), cases("adaptive"))
def test_adaptive(record: int, name: str) -> None:
    case = Case("adaptive", record, name)
    made = build(case.case["build"])
    is_schedule = isinstance(made, gdf.AdaptiveTrainSchedule)
    prefix, state = ("adaptive_train", "bucket_probs") if is_schedule else (name, "bucket_losses")
    if not is_schedule:
        case.check(made.bucket_ranges, f"{prefix}.bucket_ranges")
        case.check(made(case["grid.logsnr"]), f"{prefix}.before")
    for update in range(case.case["updates"]):
        key = f"{prefix}.update{update}"
        made.update_buckets(case[f"{key}.logsnr"], case[f"{key}.loss"], beta=case.case["beta"])
        case.check(made.bucket_losses, f"{key}.{state}")
        if not is_schedule:
            case.check(made(case["grid.logsnr"]), f"{key}.weight")
    if is_schedule:
        check_adaptive_draw(case, made)
    else:
        final = made(case["grid.logsnr"], shift=2, clamp_range=(0.05, 4.0))
        case.check(final, f"{prefix}.final_shift2_clamped")


def check_adaptive_draw(case: Case, made: gdf.AdaptiveTrainSchedule) -> None:
    """The published code draws a bucket and a place in it; ours makes both of one uniform number."""
    ends = torch.stack([made.ends[:-1], made.ends[1:]], 1)
    case.check(ends, "adaptive_train.bucket_ranges")
    case.check(made.probabilities(), "adaptive_train.norm_probs")
    chances = made.probabilities().double()
    buckets = case["adaptive_train.draw_buckets"]
    uniforms = (chances.cumsum(0) - chances)[buckets] + case["adaptive_train.draw_uniforms"] * chances[
        buckets
    ]
    drawn = made(len(uniforms), generators=lambda shape: uniforms)
    torch.testing.assert_close(drawn, case["adaptive_train.draw"], atol=1e-5, rtol=1e-6)


@pytest.mark.parametrize("record", range(len(records())))
def test_every_recorded_tensor_belongs_to_a_case(record: int) -> None:
    spec, tensors = records()[record]
    assert set(spec) == SECTIONS | {"fp64_floor", "about"}
    known = {"draw", "adaptive_train", *spec["stretched"], *spec["targets"], *spec["adaptive"]}
    known |= {f"schedule.{name}" for name in spec["schedules"]} | {
        f"draw.{name}" for name in spec["train_draws"]
    }
    known |= {f"scaler.{name}" for name in spec["scalers"]} | {f"cond.{name}" for name in spec["noise_conds"]}
    known |= {f"weight.{name}" for name in spec["loss_weights"]} | {
        f"traj.{name}" for name in spec["trajectories"]
    }
    known |= {"grid.t", "grid.t_long", "grid.logsnr", "target.in"}
    prefixes = {key: key.removeprefix("f64.") for key in tensors}
    unknown = [
        key for key, name in prefixes.items() if not any(name == k or name.startswith(f"{k}.") for k in known)
    ]
    assert not unknown
