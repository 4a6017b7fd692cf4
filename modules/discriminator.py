"""The patch discriminator that Stage A is trained against."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modules.network import Network, check_shape, keeps_config, reset_all


class SpectralConv2d(nn.Module):
    """Halving 3x3 convolution whose weight is divided by its largest singular value (Miyato et al. 2018).

    The estimate of that value moves only in `power_iteration`, so that a forward changes nothing and a step
    of many micro-batches equals a step of one. Names are those of torch's spectral-norm hook.
    """

    weight_u: Tensor
    weight_v: Tensor

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.weight_orig = nn.Parameter(torch.empty(c_out, c_in, 3, 3))
        self.bias = nn.Parameter(torch.empty(c_out))
        self.register_buffer("weight_u", torch.empty(c_out))
        self.register_buffer("weight_v", torch.empty(c_in * 9))

    def reset_parameters(self) -> None:
        fan_in = self.weight_orig[0].numel()
        nn.init.uniform_(self.weight_orig, -(fan_in**-0.5), fan_in**-0.5)
        nn.init.uniform_(self.bias, -(fan_in**-0.5), fan_in**-0.5)
        nn.init.normal_(self.weight_u)
        self.power_iteration(15)

    @torch.no_grad()
    def power_iteration(self, times: int = 1) -> None:
        """Turn the stored vectors towards the weight's first singular vectors."""
        weight = self.weight_orig.flatten(1)
        for _ in range(times):
            self.weight_v.copy_(F.normalize(weight.t() @ self.weight_u, dim=0, eps=1e-12))
            self.weight_u.copy_(F.normalize(weight @ self.weight_v, dim=0, eps=1e-12))

    def forward(self, x: Tensor) -> Tensor:
        # u^T W v by elementwise products, which autocast leaves in the weights' number format.
        sigma = ((self.weight_orig.flatten(1) * self.weight_v).sum(dim=1) * self.weight_u).sum()
        return F.conv2d(x, self.weight_orig / sigma, self.bias, stride=2, padding=1)


class Discriminator(Network):
    """Judge patches of pictures; the defaults are the published network.

    c_cond: channels of an optional condition vector; depth: halvings; c_hidden: channels at the end.
    """

    @keeps_config
    def __init__(self, c_in: int = 3, c_cond: int = 0, c_hidden: int = 512, depth: int = 6) -> None:
        super().__init__()
        self.c_in, self.c_cond = c_in, c_cond
        halvings = max(depth - 3, 3)
        widths = [c_hidden // 2 ** max(halvings - n, 0) for n in range(depth)]
        layers: list[nn.Module] = [SpectralConv2d(c_in, widths[0]), nn.LeakyReLU(0.2)]
        for c, c_next in zip(widths, widths[1:], strict=False):
            layers += [SpectralConv2d(c, c_next), nn.InstanceNorm2d(c_next), nn.LeakyReLU(0.2)]
        self.encoder = nn.Sequential(*layers)
        self.shuffle = nn.Conv2d(widths[-1] + c_cond, 1, 1)
        self.init_weights()

    def init_weights(self) -> None:
        reset_all(self)

    def shard_units(self) -> list[nn.Module]:
        return [*self._convolutions()]

    def _convolutions(self) -> list[SpectralConv2d]:
        return [layer for layer in self.encoder if isinstance(layer, SpectralConv2d)]

    def update_spectral_norms(self) -> None:
        """Follow the weights with the spectral norms' estimates: call once after every optimizer step."""
        for layer in self._convolutions():
            layer.power_iteration()

    def forward(self, x: Tensor, cond: Tensor | None = None) -> Tensor:
        """Pictures [B, c_in, H, W], cond [B, c_cond] -> logits [B, 1, h, w], one per patch, > 0 for real."""
        check_shape("x", x, None, self.c_in, None, None)
        features = self.encoder(x.to(self.shuffle.weight.dtype))
        if self.c_cond:
            if cond is None:
                raise ValueError(f"cond: expected shape [{len(x)}, {self.c_cond}], found none")
            check_shape("cond", cond, len(x), self.c_cond)
            features = torch.cat(
                (features, cond[:, :, None, None].expand(-1, -1, *features.shape[-2:])), dim=1
            )
        return self.shuffle(features)
