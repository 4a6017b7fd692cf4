"""How networks that never learn are held: in which number format, and in whose memory."""

from functools import partial
from typing import Any, TypeVar

import torch
from torch import nn

from modules.adapters.quantised import quantise
from modules.devices import copies_beside
from modules.settings import ImageEncoderSettings, NetworkSettings

Module = TypeVar("Module", bound=nn.Module)
Settings = NetworkSettings | ImageEncoderSettings
CPU = torch.device("cpu")
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def loading_place(settings: Settings, device: torch.device) -> torch.device:
    """Where a network is to be read to: one that is small on `device` is never there as it is in its file."""
    return CPU if settings.offload or settings.is_quantised else device


def loading_dtype(settings: Settings, dtype: torch.dtype) -> torch.dtype:
    """In which number format; dtype: where the settings leave it open. Of what stays, where they quantise."""
    return DTYPES.get(settings.frozen_weights or "", dtype)


def held(network: Module, settings: Settings, device: torch.device) -> Module:
    """The network, frozen and as its settings say, ready to be used on `device`."""
    network = network.eval().requires_grad_(False)
    if settings.frozen_weights == "nf4" or settings.frozen_weights == "int8":
        quantise(network, settings.frozen_weights, device)
    if settings.offload:
        return visiting(network.to(CPU), device)
    return network.to(device)


def visiting(network: Module, device: torch.device) -> Module:
    """Keep a network in the CPU's memory, pinned where a GPU is to read it; on `device` only while it runs.

    The methods that compute (`forward_methods`) bring the weights and drop them again. In place.
    """
    home = {tensor: tensor.data for tensor in (*network.parameters(), *network.buffers())}
    if device.type == "cuda":
        home = {tensor: data.pin_memory() for tensor, data in home.items()}
    for tensor, data in home.items():
        tensor.data = data
    visitor = _Visitor(home, device)
    for name in ("forward", *getattr(network, "forward_methods", ())):
        setattr(network, name, partial(visitor.call, getattr(network, name)))
    return network


class _Visitor:
    def __init__(self, home: dict[torch.Tensor, torch.Tensor], device: torch.device) -> None:
        self.home, self.device, self.is_beside = home, device, copies_beside(device)
        self.depth = 0  # of calls: a method may call forward

    def call(self, method: Any, *arguments: Any, **keywords: Any) -> Any:
        self.depth += 1
        try:
            if self.depth == 1:
                for tensor, data in self.home.items():
                    tensor.data = data.to(self.device, non_blocking=self.is_beside, copy=True)
            return method(*arguments, **keywords)
        finally:
            self.depth -= 1
            if self.depth == 0:
                for tensor, data in self.home.items():
                    tensor.data = data
