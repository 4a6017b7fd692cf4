"""The networks by the names that configs, files and folders call them."""

from collections.abc import Mapping
from typing import Any, get_type_hints

import torch

from modules.adapters.controlnet import ControlNet
from modules.adapters.ip_adapter import IPAdapter
from modules.adapters.pidinet import PiDiNet
from modules.adapters.saliency import MicroResNet
from modules.discriminator import Discriminator
from modules.limits import check_sizes
from modules.network import Network
from modules.previewer import Previewer
from modules.schema import convert, nearest
from modules.semantic_compressor import SemanticCompressor, check_backbone
from modules.stage_a import StageA
from modules.stage_b import StageB
from modules.stage_c import StageC

NETWORKS: dict[str, type[Network]] = {
    "stage_a": StageA,
    "discriminator": Discriminator,
    "semantic_compressor": SemanticCompressor,
    "stage_b": StageB,
    "stage_c": StageC,
    "previewer": Previewer,
    "controlnet": ControlNet,
    "ip_adapter": IPAdapter,
    "saliency": MicroResNet,
    "pidinet": PiDiNet,
}
# What constructors, torch's among them, raise for values that contradict each other.
BUILDING = (TypeError, RuntimeError, ArithmeticError, LookupError, AttributeError, AssertionError)


def build(network: str, config: Mapping[str, Any]) -> Network:
    """Make the network of that name with these constructor keywords and fresh weights.

    Works under `torch.device("meta")`. ValueError names the nearest valid name of a network or keyword, or
    the keyword of a value that no network can be made of.
    """
    check_keywords(network, config)
    kind, where = NETWORKS[network], f"config of {network}"
    try:
        return kind(**config)
    except (ValueError, torch.OutOfMemoryError):
        raise
    except BUILDING as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise ValueError(f"{where}: nothing can be built of it ({reason})") from error


def check_keywords(network: str, config: Mapping[str, Any]) -> None:
    """Raise ValueError as `build` does for what single keywords show; others may be missing."""
    if network not in NETWORKS:
        raise ValueError(f"network {network!r} is not known; {nearest(network, NETWORKS)}")
    where = f"config of {network}"
    hints = get_type_hints(NETWORKS[network].__init__)
    hints.pop("return")
    for key, value in config.items():
        if key not in hints:
            raise ValueError(f"{where}: keyword {key!r} is not known; {nearest(key, hints)}")
        convert(hints[key], value, f"{where}: {key}")
        if key == "backbone":
            check_backbone(value)
    check_sizes(config, f"{where}: ")
