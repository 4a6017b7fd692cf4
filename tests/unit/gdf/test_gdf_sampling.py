"""Laws of GDF.sample, for every sampler."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import gdf

SAMPLERS = {
    "ddim": gdf.DDIMSampler(),
    "ddim_eta": gdf.DDIMSampler(eta=0.5),
    "ddpm": gdf.DDPMSampler(),
    "lcm": gdf.LCMSampler(),
    "euler": gdf.EulerSampler(),
    "heun": gdf.HeunSampler(),
    "dpm": gdf.DPMSolverPP2MSampler(),
}
DETERMINISTIC = ("ddim", "euler", "heun", "dpm")
SHAPE = (3, 3, 5, 7)


def process(target=gdf.VTarget, scaler=gdf.VPScaler, schedule=None, cond=gdf.CosineTNoiseCond) -> gdf.GDF:
    return gdf.GDF(schedule or gdf.CosineSchedule(), scaler(), target(), cond(), gdf.P2LossWeight())


def generators(count: int = 3) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in range(count)]


def model(x: Tensor, r: Tensor, c: Tensor) -> Tensor:
    """Elementwise, so that a picture's prediction cannot depend on its batch."""
    return (0.2 + 0.6 * r[:, None, None, None]) * x + c[:, :, None, None]


def inputs(count: int = 3) -> dict[str, Tensor]:
    return {"c": torch.linspace(-1, 1, 9).view(3, 3)[:count]}


def sample(made: gdf.GDF, network: Callable[..., Tensor] = model, **options) -> list[gdf.Sampled]:
    options = {"generators": generators(), "timesteps": 6, "model_inputs": inputs(), "shape": SHAPE} | options
    return list(made.sample(network, **options))


def every_sampler(function):
    return pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=SAMPLERS)(function)


@every_sampler
def test_a_batch_equals_its_pictures_sampled_alone_bit_for_bit(sampler):
    together = sample(process(), sampler=sampler, cfg=4.0)
    for row, generator in enumerate(generators()):
        own = {"c": inputs()["c"][row : row + 1]}
        alone = sample(
            process(),
            sampler=sampler,
            cfg=4.0,
            shape=(1, *SHAPE[1:]),
            model_inputs=own,
            generators=[generator],
        )
        for batch, single in zip(together, alone, strict=True):
            assert all(torch.equal(b[row], s[0]) for b, s in zip(batch, single, strict=True))


@every_sampler
def test_the_global_generator_is_neither_read_nor_moved(sampler):
    before = torch.random.get_rng_state()
    first, second = (sample(process(), sampler=sampler)[-1] for _ in range(2))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(first.x, second.x)


@pytest.mark.parametrize("scaler", [gdf.VPScaler, gdf.LERPScaler])
@pytest.mark.parametrize("stretch", [False, True])
@every_sampler
def test_one_picture_known_for_sure_is_reached_by_every_sampler(sampler, scaler, stretch):
    made = process(gdf.X0Target, scaler)
    if stretch:
        made.setup_limits()
    picture = torch.linspace(-1, 1, 315).view(SHAPE)
    *_, last = sample(made, lambda x, r: picture, model_inputs={}, sampler=sampler, cfg=None)
    torch.testing.assert_close(last.x0, picture)
    torch.testing.assert_close(last.x, picture, atol=0 if stretch else 0.06, rtol=1e-5)


@pytest.mark.parametrize("scaler", [gdf.VPScaler, gdf.LERPScaler])
@every_sampler
def test_steps_that_stay_at_a_stretched_end_leave_numbers(sampler, scaler):
    made = process(gdf.EpsilonTarget, scaler, gdf.CosineSchedule(clamp_range=(0.1, 0.9)))
    made.setup_limits()
    log_snr = made.schedule(torch.linspace(1, 0, 31, dtype=torch.float64))
    assert log_snr[0] == log_snr[2] and log_snr[-1] == log_snr[-3]
    steps = sample(made, sampler=sampler, timesteps=30, dtype=torch.float64, cfg=None)
    assert all(step.x.isfinite().all() for step in steps)


@pytest.mark.parametrize("scaler", [gdf.VPScaler, gdf.LERPScaler])
@pytest.mark.parametrize(
    "schedule", [gdf.CosineSchedule(), gdf.RectifiedFlowsSchedule((-9, 9)), gdf.EDMTrainSchedule()]
)
@every_sampler
def test_normal_data_stay_normal(sampler, schedule, scaler):
    """For x0 ~ N(0, 1) every sampler must keep the variance of x, a² + b²."""
    made = process(gdf.X0Target, scaler, schedule, gdf.LogSNRNoiseCond)

    def network(x: Tensor, log_snr: Tensor) -> Tensor:
        a, b = (value[:, None] for value in made.input_scaler(log_snr))
        if isinstance(sampler, gdf.LCMSampler):  # a consistency model gives the end of x's own path
            return x / (a**2 + b**2).sqrt()
        return a * x / (a**2 + b**2)  # E[x0 | x]

    start, fresh = generators(2)
    (a, a_end), (b, b_end) = made.input_scaler(schedule(torch.tensor([1.0, 0.0])))
    x_init = gdf.randn((1, 10000), start) * (a**2 + b**2).sqrt()
    options = {
        "model_inputs": {},
        "x_init": x_init,
        "generators": fresh,
        "timesteps": 60,
        "cfg": None,
    }
    *_, last = sample(made, network, sampler=sampler, **options)
    assert last.x.std() == pytest.approx((a_end**2 + b_end**2).sqrt().item(), abs=0.05)


def counted(draws: list) -> Callable[[tuple[int, ...]], Tensor]:
    generator = torch.Generator().manual_seed(0)

    def source(shape: tuple[int, ...]) -> Tensor:
        draws.append(shape)
        return torch.randn(shape, generator=generator)

    return source


@pytest.mark.parametrize(("name", "steps"), [*((name, 0) for name in DETERMINISTIC), ("ddpm", 5), ("lcm", 5)])
def test_noise_is_drawn_only_where_it_is_used(name, steps):
    draws: list = []
    sample(process(), sampler=SAMPLERS[name], generators=counted(draws))
    assert len(draws) == 1 + steps
    if steps:
        draws.clear()
        sample(
            process(),
            sampler=SAMPLERS[name],
            generators=counted(draws),
            sampler_params={"noise_on_last_step": True},
        )
        assert len(draws) == 2 + steps


def test_a_deterministic_sampler_with_a_start_needs_no_generator():
    assert len(sample(process(), sampler=gdf.DDIMSampler(), generators=None, x_init=torch.ones(SHAPE))) == 6
    with pytest.raises(ValueError, match="generators"):
        sample(process(), generators=None, x_init=torch.ones(SHAPE))


def test_ddim_and_euler_are_the_same_and_eta_1_is_ddpm():
    for one, other in (
        (gdf.DDIMSampler(), gdf.EulerSampler()),
        (gdf.DDIMSampler(eta=1.0), gdf.DDPMSampler()),
    ):
        pairs = zip(sample(process(), sampler=one), sample(process(), sampler=other), strict=True)
        assert all(torch.equal(a.x, b.x) for a, b in pairs)


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_calls_of_the_model(name):
    seen: list = []

    def network(x: Tensor, r: Tensor, c: Tensor) -> Tensor:
        seen.append((len(x), len(r), len(c)))
        return model(x, r, c)

    sample(process(), network, sampler=SAMPLERS[name], cfg_t_stop=0.5)
    calls = 12 if name == "heun" else 6
    assert len(seen) == calls and set(seen) == {(6, 6, 6), (3, 3, 3)}


def test_the_range_of_times_and_the_shift():
    seen: list = []

    def network(x: Tensor, log_snr: Tensor) -> Tensor:
        seen.append(log_snr)
        return x

    options = {"model_inputs": {}, "cfg": None, "t_start": 0.75, "t_end": 0.25, "timesteps": 2, "shift": 2}
    sample(process(cond=gdf.LogSNRNoiseCond), network, **options)
    expected = gdf.CosineSchedule()(torch.tensor([0.75, 0.5]), shift=2)
    torch.testing.assert_close(torch.stack(seen), expected[:, None].expand(2, 3))


def test_another_schedule_only_moves_the_steps():
    fine = sample(process(), sampler=gdf.HeunSampler(), timesteps=200, cfg=None)[-1]
    other = gdf.LinearSchedule(process().schedule.limits)
    moved = sample(process(), sampler=gdf.HeunSampler(), timesteps=200, cfg=None, schedule=other)[-1]
    torch.testing.assert_close(fine.x, moved.x, atol=2e-2, rtol=0)


@pytest.mark.parametrize(
    ("dtype", "state"), [("bfloat16", "float32"), ("float32", "float32"), ("float64", "float64")]
)
def test_the_model_gets_its_dtype_and_the_trajectory_keeps_its_own(dtype, state):
    def network(x: Tensor, r: Tensor, c: Tensor) -> Tensor:
        assert x.dtype == getattr(torch, dtype) and r.dtype == getattr(torch, state)
        return model(x, r.to(x), c.to(x))

    steps = sample(process(), network, dtype=getattr(torch, dtype))
    assert {value.dtype for step in steps for value in step} == {getattr(torch, state)}
    reference = sample(process())[-1].x
    torch.testing.assert_close(
        steps[-1].x.float(), reference, atol=0.1 if dtype == "bfloat16" else 1e-4, rtol=0
    )


@every_sampler
def test_everything_happens_on_the_given_device(sampler):
    steps = sample(
        process(), sampler=sampler, device="meta", model_inputs={"c": torch.ones(3, 3, device="meta")}
    )
    assert {value.device.type for step in steps for value in step} == {"meta"}


@pytest.mark.parametrize("name", sorted(set(SAMPLERS) - {"dpm"}))  # which remembers the step before
def test_a_run_cut_in_two_equals_the_whole(name):
    options = {"sampler": SAMPLERS[name], "cfg": 4.0}
    whole = sample(process(), timesteps=8, **options)
    own = generators()
    first = sample(process(), timesteps=4, t_end=0.5, generators=own, **options)
    second = sample(process(), timesteps=4, t_start=0.5, x_init=first[-1].x, generators=own, **options)
    assert all(torch.equal(a.x, b.x) for a, b in zip(whole, first + second, strict=True))


def test_no_gradients_are_recorded():
    network = torch.nn.Conv2d(3, 3, 1)
    assert not sample(process(), lambda x, r: network(x), model_inputs={})[-1].x.requires_grad


def test_running_values_can_be_changed():
    made, options = process(), {"generators": generators(), "timesteps": 4, "cfg": None}
    plain = sample(made, timesteps=4, cfg=None, sampler=gdf.DDIMSampler())
    steps = made.sample(model, inputs(), SHAPE, sampler=gdf.DDIMSampler(), **options)
    first = next(steps)
    assert torch.equal(first.x, plain[0].x)
    zero = {"c": torch.zeros(3, 3)}
    second = steps.send({"x": first.x * 0, "model_inputs": zero, "sampler": gdf.HeunSampler()})
    assert not second.x.any()
    third = steps.send({"x": plain[1].x, "model_inputs": inputs(), "sampler": gdf.DDIMSampler()})
    assert torch.equal(third.x, plain[2].x)
    guided = steps.send({"cfg": 3.0, "cfg_rho": 0.0, "unconditional_inputs": {"c": -inputs()["c"]}})
    assert not torch.equal(guided.x, plain[3].x)
    with pytest.raises(StopIteration):
        next(steps)


def test_impossible_arguments():
    for wrong in ({"timesteps": 0}, {"t_start": 0.2, "t_end": 0.5}, {"t_start": 1.5}):
        with pytest.raises(ValueError, match="timesteps >= 1"):
            sample(process(), **wrong)
    with pytest.raises(ValueError, match="no 'etta' in DDPMSampler"):
        sample(process(), sampler_params={"etta": 1})
    steps = process().sample(model, inputs(), SHAPE, generators=generators())
    next(steps)
    with pytest.raises(ValueError, match="'cfgg' cannot be sent between steps; did you mean 'cfg'"):
        steps.send({"cfgg": 3})


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_gives_the_same_pictures():
    made = process()
    cpu = sample(made)[-1].x
    gpu = sample(made, device="cuda", model_inputs={"c": inputs()["c"].cuda()})[-1].x
    torch.testing.assert_close(gpu.cpu(), cpu, atol=1e-4, rtol=1e-4)
