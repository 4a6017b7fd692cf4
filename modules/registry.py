"""The networks by the names that configs, files and folders call them."""

import inspect
from collections.abc import Mapping
from typing import Any

from modules.adapters.controlnet import ControlNet
from modules.adapters.ip_adapter import IPAdapter
from modules.adapters.pidinet import PiDiNet
from modules.adapters.saliency import MicroResNet
from modules.discriminator import Discriminator
from modules.network import Network
from modules.previewer import Previewer
from modules.schema import nearest
from modules.semantic_compressor import SemanticCompressor
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


def build(network: str, config: Mapping[str, Any]) -> Network:
    """Make the network of that name with these constructor keywords and fresh weights.

    Works under `torch.device("meta")`. ValueError names the nearest valid name of a network or keyword.
    """
    if network not in NETWORKS:
        raise ValueError(f"network {network!r} is not known; {nearest(network, NETWORKS)}")
    keywords = list(inspect.signature(NETWORKS[network].__init__).parameters)[1:]
    for key in config:
        if key not in keywords:
            raise ValueError(f"config of {network}: keyword {key!r} is not known; {nearest(key, keywords)}")
    return NETWORKS[network](**config)
