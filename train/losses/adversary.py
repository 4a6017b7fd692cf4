"""The adversary of a VQGAN, and the weight at which it pulls as hard as the reconstruction does.

Both pulls are read off the ordinary backward pass: the reconstruction reaches the two losses as two views of
one tensor, and what arrives at each view, carried through the last layer, is that loss's gradient of the last
layer's weight. No extra backward passes, and no parameter is asked for its gradient, so sharding changes
nothing. The weight measured in one step is used in the next: it is then one number for all micro-batches and
ranks.
"""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from train.parallel import ranks
from train.recipe import Metrics

LEAST_WEIGHT = 1e-6  # never 0: the adversary's pull is measured through its weight


class AdversaryBalance:
    """factor: how much stronger or weaker than equal the adversary is to pull."""

    def __init__(self, factor: float) -> None:
        self.factor, self.adaptive = factor, LEAST_WEIGHT
        self._pulls: list[Tensor] = []  # of this step: reconstruction's, adversary's (unweighted)

    @property
    def weight(self) -> float:
        """What the adversarial loss is multiplied by."""
        return self.factor * self.adaptive

    def views(self, images: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        """The same images twice: for the reconstruction loss, and for the adversarial loss.

        images: [B, 3, H, W] from features [B, C, H/2, W/2] by a 1 x 1 convolution and a pixel shuffle.
        """
        while len(self._pulls) < 2:
            self._pulls.append(images.new_zeros(12, features.shape[1], dtype=torch.float32))
        views = images.view_as(images), images.view_as(images)
        if images.requires_grad:
            features = features.detach().float()
            views[0].register_hook(lambda gradient: self._measure(0, features, gradient))
            views[1].register_hook(lambda gradient: self._measure(1, features, gradient / self.weight))
        return views

    def after_step(self) -> None:
        """Set the weight for the next step; it stays where a pull is not finite."""
        if self._pulls:
            reconstruction, adversarial = ranks.mean(torch.stack(self._pulls))
            measured = adaptive_weight(reconstruction, adversarial).item()
            if reconstruction.isfinite().all() and adversarial.isfinite().all():
                self.adaptive = max(measured, LEAST_WEIGHT)
        self._pulls.clear()

    def state_dict(self) -> dict[str, Any]:
        return {"adaptive": self.adaptive}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.adaptive = state["adaptive"]

    def _measure(self, which: int, features: Tensor, gradient: Tensor) -> None:
        output_gradient = F.pixel_unshuffle(gradient.float(), 2)
        self._pulls[which] += conv1x1_weight_gradient(features, output_gradient)


class Adversary:
    """Both players' adversarial losses. weight: 0 for no adversary at all, else the balance's factor.

    The discriminator judges what the generator drew of the same micro-batch a moment before: no second
    forward pass, and BatchNorm counts each batch once.
    """

    def __init__(self, weight: float, start_step: int) -> None:
        self.start_step, self.balance = start_step, AdversaryBalance(weight)
        self._drawn: deque[Tensor] = deque()  # what the generator drew of this step's micro-batches

    def is_active(self, step: int) -> bool:
        """Whether there is anything to do in this step, counted from 0."""
        return self.balance.factor > 0 and step >= self.start_step

    def generator_loss(self, discriminator: nn.Module, drawn: Tensor) -> tuple[Tensor, Metrics]:
        """The weighted loss for pictures [B, 3, H, W], the balance's second view of what was drawn."""
        self._drawn.append(drawn.detach())
        loss = hinge_generator_loss(discriminator(drawn))
        metrics: dict[str, float | Tensor] = {
            "adversarial": loss.detach(),
            "adversarial_weight": self.balance.weight,
        }
        return self.balance.weight * loss, metrics

    def discriminator_loss(self, discriminator: nn.Module, images: Tensor) -> tuple[Tensor, Metrics]:
        """The loss for the real pictures of the earliest micro-batch that has not been judged yet."""
        real, fake = discriminator(images), discriminator(self._drawn.popleft())
        loss = hinge_discriminator_loss(real, fake)
        return loss, {"logits_real": real.detach().mean(), "logits_fake": fake.detach().mean()}

    def after_step(self) -> None:
        """Forget the step's pictures and set the weight for the next."""
        self._drawn.clear()
        self.balance.after_step()


@contextmanager
def recorded_input(layer: nn.Module) -> Iterator[list[Tensor]]:
    """The input of each call of `layer` within the context."""
    inputs: list[Tensor] = []
    handle = layer.register_forward_pre_hook(lambda _, arguments: inputs.append(arguments[0]))
    try:
        yield inputs
    finally:
        handle.remove()


def hinge_discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Hinge loss of the discriminator (Lim & Ye 2017): 0 where real > 1 and fake < −1."""
    return 0.5 * (F.relu(1 - real_logits).mean() + F.relu(1 + fake_logits).mean())


def hinge_generator_loss(fake_logits: Tensor) -> Tensor:
    """Hinge loss of the generator: it falls as the discriminator takes its pictures for real ones."""
    return -fake_logits.mean()


def adaptive_weight(
    reconstruction_gradient: Tensor, adversarial_gradient: Tensor, limit: float = 1e4
) -> Tensor:
    """How many times stronger the reconstruction pulls at the last decoder layer than the adversary does.

    VQGAN's lambda (Esser et al. 2021, arXiv:2012.09841, equation 7): |grad L_rec| / (|grad L_adv| + 1e-4),
    between 0 and limit. The gradients may be of any one shape. Returns a scalar.
    """
    ratio = reconstruction_gradient.norm() / (adversarial_gradient.norm() + 1e-4)
    return ratio.clamp(max=limit)


def conv1x1_weight_gradient(features: Tensor, output_gradient: Tensor) -> Tensor:
    """Gradient of a 1 x 1 convolution's weight, from its input and its output's gradient.

    features: [B, C, H, W]. output_gradient: [B, D, H, W]. Returns [D, C]. Going through the output instead of
    asking autograd for the parameter keeps parameters that are sharded, replicated or compiled out of it.
    """
    return torch.einsum("bchw,bdhw->dc", features, output_gradient)
