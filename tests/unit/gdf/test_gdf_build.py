"""Diffusion processes from plain data, and clear errors for wrong ones."""

import inspect
from pathlib import Path

import pytest
import torch
import yaml

import gdf

SPEC = {
    "schedule": {"name": "CosineSchedule", "clamp_range": [0.0001, 0.9999]},
    "input_scaler": {"name": "VPScaler"},
    "target": {"name": "EpsilonTarget"},
    "noise_cond": {"name": "CosineTNoiseCond"},
    "loss_weight": {"name": "AdaptiveLossWeight", "buckets": 50},
    "offset_noise": 0.1,
}


def test_a_process_is_built_from_its_spec():
    made = gdf.build(SPEC)
    assert made.schedule == gdf.CosineSchedule(clamp_range=[0.0001, 0.9999])
    assert isinstance(made.target, gdf.EpsilonTarget)
    assert len(made.loss_weight.bucket_losses) == 50 and made.offset_noise == 0.1
    assert gdf.build({key: SPEC[key] for key in SPEC if key != "offset_noise"}).offset_noise == 0


def test_parts_may_be_made_of_parts():
    discrete = {"name": "DiscreteNoiseCond", "noise_cond": {"name": "EDMNoiseCond"}, "steps": 10}
    composed = {"name": "ComposedLossWeight", "mul": [{"name": "P2LossWeight"}, {"name": "SNRLossWeight"}]}
    made = gdf.build(SPEC | {"noise_cond": discrete, "loss_weight": composed})
    assert made.noise_cond == gdf.DiscreteNoiseCond(gdf.EDMNoiseCond(), steps=10)
    assert made.loss_weight.parts() == [gdf.P2LossWeight(), gdf.SNRLossWeight()]
    halves = {"scheduler1": {"name": "CosineSchedule"}, "scheduler2": {"name": "LinearSchedule"}}
    schedule = gdf.build_schedule({"name": "InterpolatedSchedule", "shifts": [2, 1], **halves})
    assert schedule == gdf.InterpolatedSchedule(gdf.CosineSchedule(), gdf.LinearSchedule(), [2, 1])


def test_samplers_and_schedules():
    assert gdf.build_sampler({"name": "DDIMSampler", "eta": 0.5}) == gdf.DDIMSampler(eta=0.5)
    assert gdf.build_schedule({"name": "LinearSchedule", "shift": 2}) == gdf.LinearSchedule(shift=2)


def test_every_public_component_can_be_named():
    bases = {"schedule": gdf.BaseSchedule, "input_scaler": gdf.BaseScaler, "target": gdf.BaseTarget}
    bases |= {"noise_cond": gdf.BaseNoiseCond, "loss_weight": gdf.BaseLossWeight, "sampler": gdf.BaseSampler}
    needs = {"x": [0.0, 1.0], "y": [0.9, 0.1], "noise_cond": {"name": "EDMNoiseCond"}}
    needs |= {"scheduler1": {"name": "LinearSchedule"}, "scheduler2": {"name": "CosineSchedule"}}
    for name in gdf.__all__:
        value = getattr(gdf, name)
        kind = next(
            (k for k, base in bases.items() if inspect.isclass(value) and issubclass(value, base)), None
        )
        if kind is None or inspect.isabstract(value):
            continue
        required = [p for p, v in inspect.signature(value).parameters.items() if v.default is v.empty]
        spec = {"name": name} | {parameter: needs[parameter] for parameter in required}
        made = gdf.build_sampler(spec) if kind == "sampler" else getattr(gdf.build(SPEC | {kind: spec}), kind)
        assert type(made) is value


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"schedule": {"name": "CosinSchedule"}},
            "gdf.schedule.name: .*'CosinSchedule'; did you mean 'CosineSchedule'",
        ),
        ({"schedule": {"name": "VPScaler"}}, "gdf.schedule.name: no schedule is called 'VPScaler'"),
        ({"schedule": {"name": "BaseSchedule"}}, "no schedule is called 'BaseSchedule'"),
        (
            {"schedule": {"name": "CosineSchedule", "clamp_rang": 1}},
            "gdf.schedule.clamp_rang: .*'clamp_range'",
        ),
        ({"schedule": {"s": 1}}, "gdf.schedule: expected {name: ..., keywords}, found {'s': 1}"),
        ({"schedule": "CosineSchedule"}, "gdf.schedule: expected"),
        ({"schedule": None}, "gdf.schedule: expected {name: ..., keywords}, found null"),
        (
            {"schedule": {"name": "CosineSchedule", "clamp_range": "x"}},
            "gdf.schedule: no CosineSchedule can be made of {'clamp_range': 'x'}",
        ),
        ({"scheduler": {}}, "gdf.scheduler: .*did you mean 'schedule'"),
        (
            {"schedule": {"name": "StableDiffusionSchedule", "total_steps": 10**12}},
            "gdf.schedule.total_steps: expected at most 1048576, found 1000000000000",
        ),
        ({"loss_weight": {"name": "AdaptiveLossWeight", "buckets": 2**21}}, "buckets: expected at most"),
        ({"noise_cond": {"name": "DiscreteNoiseCond"}}, "gdf.noise_cond.noise_cond: missing"),
        (
            {"noise_cond": {"name": "DiscreteNoiseCond", "noise_cond": {"name": "EDMNoiseCon"}}},
            "gdf.noise_cond.noise_cond.name: .*did you mean 'EDMNoiseCond'",
        ),
    ],
)
def test_errors_name_the_key_and_the_nearest_name(change, message):
    with pytest.raises(ValueError, match=message):
        gdf.build(SPEC | change)


@pytest.mark.parametrize(("spec", "found"), [(None, "null"), ("cosine", "'cosine'")])
def test_what_is_no_spec_at_all_is_said(spec, found):
    with pytest.raises(ValueError, match=f"gdf: expected .*, found {found}"):
        gdf.build(spec)


def test_a_missing_part_is_named():
    with pytest.raises(ValueError, match="gdf.target: missing"):
        gdf.build({key: value for key, value in SPEC.items() if key != "target"})


def test_a_process_can_be_built_while_the_default_device_is_meta():
    with torch.device("meta"):
        made = gdf.build(SPEC)
    assert (
        made.diffuse(
            torch.ones(1, 1, 2, 2), torch.ones(1, 1, 2, 2), torch.ones(1), offset=torch.ones(1)
        ).noised.device.type
        == "cpu"
    )


@pytest.mark.parametrize("name", ["stage_b", "stage_c"])
def test_the_released_configs_are_the_released_diffusion_but_for_the_loss_weight(name: str) -> None:
    path = Path(__file__).parents[3] / "configs" / "gdf" / f"{name}.yaml"
    config, released = gdf.build(yaml.safe_load(path.read_text())), gdf.build(gdf.RELEASED_SPEC)
    assert config.schedule == released.schedule
    for part in ("input_scaler", "target", "noise_cond"):
        assert type(getattr(config, part)) is type(getattr(released, part))
