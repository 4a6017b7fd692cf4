"""One update of one player: backward passes, averaging, the finiteness check, clipping, the optimizer."""

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from train.config import OptimConfig
from train.optim.fused_backward import FusedBackward
from train.optim.optimizers import make_optimizer
from train.optim.rates import set_learning_rate
from train.optim.updater import Updater
from train.parallel import ranks
from train.parallel.averaging import GradientAverager
from train.parallel.batchnorm import RunningStatistics
from train.parallel.shards import gradient_norm, is_sharded, local, sync_gradients
from train.parallel.world import World


class Update(NamedTuple):
    """What an update came to, the same on all ranks."""

    loss: float  # mean over micro-batches and ranks
    gradient_norm: float  # before clipping
    is_finite: bool  # False: the module was left as it is


class Player:
    """A module that learns, with its optimizer. config: with its own differences; seed: the run's."""

    def __init__(self, name: str, module: nn.Module, config: OptimConfig, world: World, seed: int) -> None:
        self.name, self.module, self.config, self.world = name, module, config, world
        self.parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
        self.optimizer = make_optimizer(module, config)
        self.updater = Updater(self.optimizer, seed)
        self.statistics = RunningStatistics(module)
        self.fused_backward: FusedBackward | None = None
        if config.fused_backward:
            self.fused_backward = FusedBackward(self.parameters, self.updater, world.device)
        self.is_sharded = is_sharded(module)
        averages = world.size > 1 and not self.is_sharded
        self.averager = GradientAverager(self.parameters) if averages else None

    def update(
        self, losses: Iterable[Tensor], num_accum: int, rate: float, clip_norm: float | None, step: int
    ) -> Update:
        """One step on the mean of `losses`, one per micro-batch, each computed when it is asked for."""
        set_learning_rate(self.optimizer, rate)
        self.statistics.keep()
        done = self._update(losses, num_accum, clip_norm, step)
        if not done.is_finite:
            self.statistics.put_back()
        return done

    def _update(self, losses: Iterable[Tensor], num_accum: int, clip_norm: float | None, step: int) -> Update:
        if self.fused_backward:
            (loss,) = losses  # settings see to the rest: no clipping, one process
            return self._update_fused(self.fused_backward, loss, step)
        self.optimizer.zero_grad(set_to_none=True)
        total = torch.zeros((), device=self.world.device)
        for index, loss in enumerate(losses):
            self._backward(loss / num_accum, is_last=index == num_accum - 1)
            total += loss.detach() / num_accum
        if self.averager:
            self.averager.finish()
        mean = ranks.mean(total)
        norm = gradient_norm(self.parameters).to(mean.device)
        loss_value, norm_value = torch.stack([mean, norm]).tolist()  # the step's only wait for a GPU
        is_finite = math.isfinite(loss_value) and math.isfinite(norm_value)
        if is_finite:
            self._step(norm_value, clip_norm, step)
        return Update(loss_value, norm_value, is_finite)

    def _backward(self, loss: Tensor, is_last: bool) -> None:
        if self.is_sharded:
            sync_gradients(self.module, is_last)
        if self.averager and is_last:
            self.averager.arm()
        if loss.requires_grad:  # not so before an adversarial start step, for one
            loss.backward()

    def _step(self, norm: float, clip_norm: float | None, step: int) -> None:
        changing = [parameter for parameter in self.parameters if parameter.grad is not None]
        if clip_norm is not None and norm > clip_norm:
            torch._foreach_mul_([local(p.grad) for p in changing if p.grad is not None], clip_norm / norm)
        self.updater.update(changing, step)

    def _update_fused(self, backward: FusedBackward, loss: Tensor, step: int) -> Update:
        """A loss that is not finite leaves the weights as they are; a gradient that is not shows too late."""
        loss_value = loss.item()
        norm = backward(loss, step).item() if math.isfinite(loss_value) else math.nan
        return Update(loss_value, norm, math.isfinite(norm))


@contextmanager
def only(player: Player, players: Iterable[Player]) -> Iterator[None]:
    """Freeze all other players within the context: their losses may pass through them, not move them."""
    frozen = [p for other in players if other is not player for p in other.parameters]
    for parameter in frozen:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(True)
