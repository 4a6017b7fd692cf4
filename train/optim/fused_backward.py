"""Updates inside the backward pass: a gradient is applied and freed as soon as it is complete."""

import torch
from torch import Tensor, nn

from train.optim.updater import Updater


class FusedBackward:
    """Of a player's gradients only one or two are ever alive, in the place of all of them.

    So nothing that needs all gradients first can be done: clipping, averaging, leaving out a whole step for
    one gradient that is not finite.
    """

    def __init__(self, parameters: list[nn.Parameter], updater: Updater, device: torch.device) -> None:
        self.updater, self.device = updater, device
        for parameter in parameters:
            parameter.register_post_accumulate_grad_hook(self._apply)  # type: ignore[arg-type]

    def __call__(self, loss: Tensor, step: int) -> Tensor:
        """One backward pass and all updates; returns the norm of all gradients, a scalar.

        A gradient's entries that are not finite count as zeros, and show in the norm.
        """
        self._step, self._squares = step, torch.zeros((), device=self.device)
        if loss.requires_grad:
            loss.backward()
        return self._squares.sqrt()

    def _apply(self, parameter: nn.Parameter) -> None:
        gradient = parameter.grad
        assert gradient is not None  # it has just been accumulated
        self._squares += torch.linalg.vector_norm(gradient, dtype=torch.float32).square()
        gradient.nan_to_num_(0.0, 0.0, 0.0)  # looking at it would make the processor wait for the GPU
        self.updater.update([parameter], self._step)
        parameter.grad = None
