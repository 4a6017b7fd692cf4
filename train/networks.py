"""Makes the networks that a run's `model` settings describe: those that learn, and those that only help."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import nn

import modules
from modules.registry import check_keywords
from modules.schema import ConfigError
from modules.settings import NetworkSettings
from modules.weights import load_network
from train.frozen import held, loading_dtype, loading_place

Module = TypeVar("Module", bound=nn.Module)


def check_networks(model: Any, learning: Sequence[str], passing: str | None = None) -> None:
    """Raise ConfigError for networks that cannot be built, that do not learn and have no weights, or that are
    to be trained or held as this recipe cannot.

    model: a recipe's dataclass of `NetworkSettings`, one field per network, None where an optional one is
    absent. learning: names of those that learn. passing: the one that gradients pass through anyway.
    """
    for name, settings in vars(model).items():
        if not isinstance(settings, NetworkSettings):
            continue
        if name not in learning and settings.weights is None and not settings.allow_random:
            raise ConfigError(
                f"model.{name}.weights: missing; this network does not learn here: name its file,"
                " or the folder of the run that trained it"
            )
        if settings.train is not None and settings.train != (name in learning):
            raise ConfigError(
                f"model.{name}.train: found {str(settings.train).lower()}, but in this recipe the network"
                f" {'learns' if name in learning else 'does not learn'}; leave it out"
            )
        if name in learning and settings.frozen_weights is not None:
            raise ConfigError(
                f"model.{name}.frozen_weights: found {settings.frozen_weights}, but in this recipe the"
                " network learns (optim.weights says how); leave it out"
            )
        if settings.offload and name in (*learning, passing):
            raise ConfigError(
                f"model.{name}.offload: found true, but gradients pass through this network, which then has"
                " to stay where they are; leave it out"
            )
        _check_keywords(name, settings)


def learning_network(name: str, settings: NetworkSettings, device: torch.device) -> Any:
    """A network in train mode and float32: fresh, or from its weights (the averaged ones of a run)."""
    return _make(name, settings, device, torch.float32).train()


def frozen_network(name: str, settings: NetworkSettings, device: torch.device, dtype: torch.dtype) -> Any:
    """A network in eval mode that never changes, held as its settings say; else in number format dtype."""
    place, dtype = loading_place(settings, device), loading_dtype(settings, dtype)
    return held(_make(name, settings, place, dtype), settings, device)


def diffusion_network(
    name: str, settings: NetworkSettings, device: torch.device, dtype: torch.dtype, *, learns: bool
) -> Any:
    """A network that learns; or, where something else does, the same frozen, in number format dtype."""
    if learns:
        return learning_network(name, settings, device)
    return frozen_network(name, settings, device, dtype)


def network_dtype(precision: str) -> torch.dtype:
    """The number format of networks that do not learn, for a run's precision."""
    return torch.bfloat16 if precision == "bf16" else torch.float32


def frozen(network: Module) -> Module:
    """The same network in eval mode, its parameters asking for no gradients."""
    return network.eval().requires_grad_(False)


@contextmanager
def evaluating(*networks: nn.Module) -> Iterator[None]:
    """Put networks into eval mode within the context; parts may be in other modes than the whole."""
    modes = {part: part.training for network in networks for part in network.modules()}
    try:
        for network in networks:
            network.eval()
        yield
    finally:
        for part, mode in modes.items():
            part.training = mode


def freeze_batchnorm(network: nn.Module) -> None:
    """Let every BatchNorm use its running statistics from now on, until the network's next `train()`.

    The statistics of a small batch are noise to everything behind them.
    """
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()


def _check_keywords(name: str, settings: NetworkSettings) -> None:
    """With weights they are only the difference from what the file says: no network is made of them alone."""
    try:
        check_keywords(name, settings.config)
        if settings.config and settings.weights is None:
            with torch.device("meta"):
                modules.build(name, settings.config)
    except ValueError as error:
        raise ConfigError(f"model.{name}.config: {error}") from error


def _make(name: str, settings: NetworkSettings, device: torch.device, dtype: torch.dtype) -> Any:
    if settings.weights is None:
        with device:
            return modules.build(name, settings.config).to(dtype)
    return load_network(settings.weights, name, device=device, dtype=dtype, changes=settings.config)
