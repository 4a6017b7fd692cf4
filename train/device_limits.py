"""What a device cannot do of what the settings ask for, said before anything is built."""

from collections.abc import Iterator

import torch

from modules.devices import has_format
from modules.schema import ConfigError
from train.config import Config


def check_device(config: Config, device: torch.device) -> None:
    """Raise ConfigError for the first setting that does not work on that device."""
    for found in unable(config, device):
        raise ConfigError(found)


def unable(config: Config, device: torch.device) -> Iterator[str]:
    """A line for each setting that does not work there."""
    if config.run.precision == "bf16" and not has_format(device, torch.bfloat16):
        yield f"run.precision: found bf16, which {device.type} does not have on this system; use fp32"
    if device.type != "mps":
        return
    named = {"optim": config.optim.name}
    for player, own in config.optim.players.items():
        named |= {f"optim.players.{player}": own["name"]} if "name" in own else {}
    for key, name in named.items():
        if name != "adamw":
            yield f"{key}.name: found {name}, for which bitsandbytes has no code on mps; use adamw"
    for network, settings in config.model.items():
        # Its kernels for MPS are no part of the library: it would fetch them from a hub.
        if isinstance(settings, dict) and settings.get("frozen_weights") == "nf4":
            yield f"model.{network}.frozen_weights: found nf4, which does not work on mps; use int8"
