"""Consistency distillation, against teachers whose paths are known: normally distributed pictures."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gdf
from train.losses.consistency import Distillation, Span, pseudo_huber
from train.rng import step_rng

MEANS, DEVIATION = (0.7, -0.4), 0.5
SHAPE = (6, 2, 4, 4)
TARGETS = ["X0Target", "EpsilonTarget", "VTarget", "RectifiedFlowsTarget"]
SPEC: dict[str, Any] = {
    "schedule": {"name": "CosineSchedule"},
    "input_scaler": {"name": "VPScaler"},
    "noise_cond": {"name": "LogSNRNoiseCond"},
    "loss_weight": {"name": "ConstantLossWeight"},
}


def diffusion_of(target: str = "X0Target", scaler: str = "VPScaler") -> gdf.GDF:
    return gdf.build(SPEC | {"target": {"name": target}, "input_scaler": {"name": scaler}})


class Normal(nn.Module):
    """What a perfect network says of pixels ~ N(mean, DEVIATION²), the mean being its condition [B]."""

    def __init__(self, diffusion: gdf.GDF) -> None:
        super().__init__()
        self.diffusion = diffusion

    def forward(self, x: Tensor, noise_cond: Tensor, mean: Tensor) -> Tensor:
        a, b = (scale.view(-1, 1, 1, 1) for scale in self.diffusion.input_scaler(noise_cond))
        mean = mean.view(-1, 1, 1, 1)
        share = a * DEVIATION**2 / (a**2 * DEVIATION**2 + b**2)
        clean = mean + share * (x - a * mean)
        noise = (x - a * clean) / b
        return self.diffusion.target(clean, noise, noise_cond.view(-1, 1, 1, 1), a, b)


class End(Normal):
    """The exact consistency function of these pictures, said as its diffusion's target."""

    def forward(self, x: Tensor, noise_cond: Tensor, mean: Tensor) -> Tensor:
        a, b = (scale.view(-1, 1, 1, 1) for scale in self.diffusion.input_scaler(noise_cond))
        mean = mean.view(-1, 1, 1, 1)
        clean = mean + DEVIATION * (x - a * mean) / (a**2 * DEVIATION**2 + b**2).sqrt()
        noise = (x - a * clean) / b
        return self.diffusion.target(clean, noise, noise_cond.view(-1, 1, 1, 1), a, b)


class PathEnd(nn.Module):
    """Follows a teacher step by step to the end of its path: what a student is to do at once."""

    def __init__(
        self, distillation: Distillation, teacher: nn.Module, unconditional: dict[str, Tensor]
    ) -> None:
        super().__init__()
        self.taught, self.teacher, self.unconditional = distillation, teacher, unconditional

    def forward(self, x: Tensor, noise_cond: Tensor, **conditions: Tensor) -> Tensor:
        times = torch.arange(1, self.taught.num_times + 1) / self.taught.num_times
        levels = self.taught.diffusion.schedule(times, self.taught.settings.shift)
        start = times[(levels[None] - noise_cond[:, None]).abs().argmin(1)]  # [B]
        while (start > 0).any():
            end = (start - 1 / self.taught.settings.steps).clamp(min=0)
            end = torch.where(end < 1e-6, 0.0, end)
            moved = self.taught.follow(self.teacher, x, Span(start, end), conditions, self.unconditional)
            x = torch.where((start > 0).view(-1, 1, 1, 1), moved, x)
            start = end
        return x


def example() -> tuple[Tensor, dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    means = torch.where(torch.arange(SHAPE[0]) % 2 == 0, *MEANS)
    latents = means.view(-1, 1, 1, 1) + DEVIATION * torch.randn(SHAPE, generator=generator)
    return latents, {"mean": means}


UNCONDITIONAL = {"mean": torch.full((SHAPE[0],), 0.1)}


def taught(
    target: str = "X0Target", scaler: str = "VPScaler", num_times: int = 40, **teacher: Any
) -> Distillation:
    settings = {"steps": 20, "guidance": 1.0, "sampler": "ddim", "rescale": 0.0, **teacher}
    return Distillation(diffusion_of(target, scaler), gdf.SamplingSettings(**settings), num_times, 0.00054)


def distance(distillation: Distillation, student: nn.Module, num_draws: int = 4) -> float:
    """Mean distance of the student's answers at both ends of the teacher's steps, over several batches."""
    teacher = Normal(distillation.diffusion)
    found = [
        distillation.loss(student, teacher, *example(), UNCONDITIONAL, step_rng(0, step, 0, SHAPE[0]))[1]
        for step in range(num_draws)
    ]
    return torch.cat(found).mean().item()


@pytest.mark.parametrize(
    "teacher", [{}, {"guidance": 3.0, "rescale": 0.7, "shift": 2.0}, {"guidance": (3.0, 1.0)}]
)
def test_who_follows_the_teacher_to_the_end_has_no_loss(teacher: dict[str, Any]) -> None:
    distillation = taught(**teacher)
    student = PathEnd(distillation, Normal(distillation.diffusion), UNCONDITIONAL)
    assert distance(distillation, student) < 1e-6
    assert distance(distillation, Normal(distillation.diffusion)) > 0.02


@pytest.mark.parametrize("scaler", ["VPScaler", "LERPScaler"])
@pytest.mark.parametrize("target", TARGETS)
def test_the_exact_consistency_function_is_off_by_no_more_than_the_teachers_steps(
    target: str, scaler: str
) -> None:
    """A step of DDIM by the square of its length."""
    distances = []
    for steps in (50, 100):
        distillation = taught(target, scaler, num_times=100, steps=steps)
        distances.append(distance(distillation, End(distillation.diffusion), num_draws=20))
    assert distances[0] < 0.01
    assert distances[1] / distances[0] == pytest.approx(1 / 4, rel=0.2)


@pytest.mark.parametrize(
    "teacher", [{}, {"guidance": 2.5, "rescale": 0.5, "shift": 2.0}, {"guidance": (4.0, 1.0)}]
)
@pytest.mark.parametrize("target", TARGETS)
def test_the_teachers_steps_are_those_of_sampling(target: str, teacher: dict[str, Any]) -> None:
    distillation = taught(target, num_times=8, steps=8, **teacher)
    network, conditions = Normal(distillation.diffusion), example()[1]
    x = torch.randn(SHAPE, generator=torch.Generator().manual_seed(3))
    sampling = distillation.diffusion.sample(
        network,
        conditions,
        SHAPE,
        unconditional_inputs=UNCONDITIONAL,
        x_init=x,
        **distillation.settings.keywords(),
    )
    for index, sampled in enumerate(sampling):
        times = (torch.full((SHAPE[0],), (8 - index - done) / 8) for done in (0, 1))
        x = distillation.follow(network, x, Span(*times), conditions, UNCONDITIONAL)
        torch.testing.assert_close(x, sampled.x0 if index == 7 else sampled.x, rtol=1e-4, atol=1e-5)


def test_at_time_zero_the_answer_is_the_picture_itself() -> None:
    distillation, latents = taught(), example()[0]
    t = torch.tensor([0.0, 0.5] * 3)
    answer = distillation.answer(Normal(distillation.diffusion), latents, t, example()[1])
    assert torch.equal(answer[::2], latents[::2])
    assert not torch.isclose(answer[1::2], latents[1::2]).all()


def test_spans_begin_at_every_time_and_are_as_long_as_a_step() -> None:
    distillation = taught(num_times=40, steps=10)
    spans = [distillation.draw_span(step_rng(0, step, 0, 8), torch.device("cpu")) for step in range(100)]
    starts, ends = (torch.cat(times) for times in zip(*spans, strict=True))
    assert set((starts * 40).round().int().tolist()) == set(range(1, 41))
    torch.testing.assert_close(ends, (starts - 0.1).clamp(min=0), rtol=0, atol=1e-6)


@pytest.mark.parametrize("steps", [1, 2, 4, 8])
def test_multistep_sampling_begins_steps_at_learnt_times_and_keeps_the_distribution(steps: int) -> None:
    """Song et al. 2023, algorithm 1: whatever the number of steps, exact answers are drawn right."""
    asked: list[float] = []

    class Asked(End):
        def forward(self, x: Tensor, noise_cond: Tensor, mean: Tensor) -> Tensor:
            asked.append(noise_cond[0].item())
            return super().forward(x, noise_cond, mean)

    distillation = taught(num_times=40)
    diffusion, count = distillation.diffusion, 4000
    *_, (pictures, _, _) = diffusion.sample(
        Asked(diffusion),
        {"mean": torch.full((count,), 0.7)},
        (count, 1, 1, 1),
        generators=torch.Generator().manual_seed(0),
        **gdf.SamplingSettings(steps=steps, guidance=1.0, sampler="lcm").keywords(),
    )
    assert pictures.mean().item() == pytest.approx(0.7, abs=0.03)
    assert pictures.std().item() == pytest.approx(DEVIATION, rel=0.04)
    learnt = diffusion.schedule(torch.arange(1, 41) / 40)
    assert len(asked) == steps
    assert all((learnt - level).abs().min() < 1e-4 for level in asked)


def test_the_distance_is_a_root_mean_square_rounded_off_at_its_foot() -> None:
    squares = torch.tensor([0.0, 1e-10, 1.0])
    found = pseudo_huber(squares, 0.001)
    assert found[0] == 0
    assert found[1].item() == pytest.approx(1e-10 / (2 * 0.001), rel=0.01)
    assert found[2].item() == pytest.approx(1 - 0.001, rel=1e-3)
    assert math.isfinite(
        torch.autograd.functional.jacobian(lambda s: pseudo_huber(s, 0.001).sum(), squares).sum()
    )


def test_only_the_noisier_end_teaches_and_without_dropout_the_target() -> None:
    """The target is the student's own answer in eval mode; it is in train mode again afterwards."""

    class Student(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.tensor(0.5))
            self.modes: list[tuple[bool, bool]] = []

        def forward(self, x: Tensor, noise_cond: Tensor, mean: Tensor) -> Tensor:
            self.modes.append((self.training, torch.is_grad_enabled()))
            return self.weight * x

    distillation, student = taught(), Student().train()
    loss, distances = distillation.loss(
        student, Normal(distillation.diffusion), *example(), UNCONDITIONAL, step_rng(0, 0, 0, SHAPE[0])
    )
    loss.backward()
    assert student.modes == [(False, False), (True, True)]
    assert student.training
    assert student.weight.grad is not None and student.weight.grad != 0
    assert distances.shape == (SHAPE[0],) and not distances.requires_grad


class Table(nn.Module):
    """A student with one number for every time: by how much it stretches what differs from the mean."""

    def __init__(self, distillation: Distillation) -> None:
        super().__init__()
        self.diffusion = distillation.diffusion
        times = torch.arange(1, distillation.num_times + 1) / distillation.num_times
        self.levels = self.diffusion.schedule(times)
        a, b = self.diffusion.input_scaler(self.levels)
        self.stretch = nn.Parameter(a * DEVIATION**2 / (a**2 * DEVIATION**2 + b**2))  # as the teacher's

    def forward(self, x: Tensor, noise_cond: Tensor, mean: Tensor) -> Tensor:
        nearest = (self.levels[None] - noise_cond[:, None]).abs().argmin(1)
        a, mean = self.diffusion.input_scaler(noise_cond)[0].view(-1, 1, 1, 1), mean.view(-1, 1, 1, 1)
        return mean + self.stretch[nearest].view(-1, 1, 1, 1) * (x - a * mean)


def test_a_student_learns_where_its_teachers_paths_end() -> None:
    distillation = taught(num_times=10, steps=10)
    student, teacher = Table(distillation), Normal(distillation.diffusion)
    end = PathEnd(distillation, teacher, UNCONDITIONAL)
    latents, conditions = example()

    def worst_error() -> float:
        errors = []
        for level in student.levels:
            answers = [network(latents, level.expand(SHAPE[0]), **conditions) for network in (student, end)]
            errors.append(((answers[0] - answers[1]).norm() / answers[1].norm()).item())
        return max(errors)

    assert worst_error() > 0.3
    optimizer = torch.optim.Adam(student.parameters(), 0.03, betas=(0.9, 0.99))
    for step in range(300):
        rng = step_rng(0, step, 0, SHAPE[0])
        loss, _ = distillation.loss(student, teacher, latents, conditions, UNCONDITIONAL, rng)
        optimizer.param_groups[0]["lr"] = 0.03 * (1 - step / 300)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert worst_error() < 0.06
