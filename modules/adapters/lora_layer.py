"""What a LoRA adds to one layer: a change of low rank (Hu et al. 2021; DoRA: Liu et al. 2024)."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from modules.adapters.lora_state import Factors
from modules.dropout import Dropout

SMALLEST_NORM = 1e-12  # of a weight that is all zeros, as a fresh output layer's


class Factor(nn.Module):
    """One of the two factors: a weight with a place of its own in the names of the state."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(shape, dtype=torch.float32))


class LoRALayer(nn.Module):
    """Beside a layer with weight W: up · down · alpha / rank, in float32; W itself is left alone.

    down: [rank, in] or, of a convolution, [rank, in / groups, height, width]; up: [out, rank] or
    [out, rank, 1, 1]. Flattened to matrices their product has as many elements as W, and its shape.
    dora: None, or the shape of the magnitudes of W + change along one axis: [out, 1, …] or [1, in, …].
    norms_of: whose norms the magnitudes replace: those of the "patched" weight (the paper's equation 5), or
    those of the "original" one (as ComfyUI computes magnitudes along the output axis).
    strength: how much of the change counts; 0 leaves the layer's output bit-identical.
    """

    alpha: Tensor

    def __init__(
        self,
        down: tuple[int, ...],
        up: tuple[int, ...],
        alpha: float,
        dora: tuple[int, ...] | None = None,
        dropout: float = 0.0,
        norms_of: str = "patched",
    ) -> None:
        super().__init__()
        self.initial_alpha, self.norms_of, self.strength = alpha, norms_of, 1.0
        self.lora_down, self.lora_up = Factor(down), Factor(up)
        self.register_buffer("alpha", torch.empty((), dtype=torch.float32))
        self.dora_scale = None if dora is None else nn.Parameter(torch.empty(dora, dtype=torch.float32))
        self.dropout = Dropout(dropout) if dropout else nn.Identity()
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """down random, such that it keeps variances, and up zero: a fresh LoRA changes nothing.

        Magnitudes start at 1: what they should be, only the base's weight tells (`take_magnitude`).
        """
        nn.init.normal_(self.lora_down.weight, std=self.lora_down.weight[0].numel() ** -0.5)
        nn.init.zeros_(self.lora_up.weight)
        nn.init.constant_(self.alpha, self.initial_alpha)
        if self.dora_scale is not None:
            nn.init.ones_(self.dora_scale)

    @property
    def rank(self) -> int:
        return self.lora_down.weight.shape[0]

    @property
    def scale(self) -> Tensor:
        """alpha / rank: a tensor without dimensions."""
        return self.alpha / self.rank

    def factors(self) -> Factors:
        """The tensors, detached."""
        magnitude = None if self.dora_scale is None else self.dora_scale.detach()
        return Factors(self.lora_down.weight.detach(), self.lora_up.weight.detach(), self.alpha, magnitude)

    @torch.no_grad()
    def take_magnitude(self, weight: Tensor) -> None:
        """Let DoRA's magnitudes be those of the base's weight as it is, so that nothing changes yet."""
        if self.dora_scale is not None:
            self.dora_scale.copy_(norms(weight.float(), self.dora_scale.shape))

    def attach(self, layer: nn.Module) -> RemovableHandle:
        """Let the layer's output be changed from now on, until the handle is removed."""
        return layer.register_forward_hook(self._add)

    def _add(self, layer: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor | None:
        if self.strength == 0:
            return None  # the output as it is
        return output + self(inputs[0], layer).to(output.dtype)

    def forward(self, x: Tensor, layer: nn.Module) -> Tensor:
        """The change of the layer's output for its input x, computed in x's number format."""
        x = self.dropout(x)
        convolution = isinstance(layer, nn.Conv2d)
        if self.dora_scale is not None or (convolution and layer.groups > 1):  # type: ignore[operator]
            change = (self.strength * self.change(layer.weight)).to(x.dtype)  # type: ignore[arg-type]
            return layer._conv_forward(x, change, None) if convolution else F.linear(x, change)  # type: ignore[operator]
        down, up = self.lora_down.weight.to(x.dtype), self.lora_up.weight.to(x.dtype)
        scale = self.strength * self.scale
        if convolution:
            return F.conv2d(layer._conv_forward(x, down, None) * scale, up)  # type: ignore[operator]
        return F.linear(F.linear(x, down) * scale, up)

    def change(self, weight: Tensor) -> Tensor:
        """What is added to the base's weight at full strength: [as weight], float32."""
        with torch.autocast(weight.device.type, enabled=False):
            factors = self.lora_up.weight.flatten(1), self.lora_down.weight.flatten(1)
            change = (factors[0] @ factors[1]).reshape(weight.shape) * self.scale
            if self.dora_scale is None:
                return change
            weight = weight.float()
            patched = weight + change
            # The norm is a constant to the gradient (the paper's section 4.3).
            measured = patched.detach() if self.norms_of == "patched" else weight
            return patched * (self.dora_scale / norms(measured, self.dora_scale.shape)) - weight


def norms(weight: Tensor, shape: torch.Size) -> Tensor:
    """Norms of the weight along the axis that `shape` keeps, with that shape."""
    axis = 0 if shape[0] == weight.shape[0] else 1
    others = [dim for dim in range(weight.ndim) if dim != axis]
    measured = torch.linalg.vector_norm(weight, dim=others, keepdim=True)
    return measured.clamp_min(SMALLEST_NORM).reshape(shape)
