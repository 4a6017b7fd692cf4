"""The layers of a network that an adapter can be put beside, by name."""

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase

from torch import nn

from modules.adapters.lora_layer import LoRALayer
from modules.adapters.quantised import QuantisedLinear
from modules.attention import PackedLinear
from modules.schema import nearest


def adaptable_layers(network: nn.Module) -> dict[str, nn.Module]:
    """The linear layers (packed and quantised ones too) and convolutions of a network, in its order.

    Attached adapters and what belongs to them are left out.
    """
    inside = tuple(name for name, module in network.named_modules() if isinstance(module, LoRALayer))
    return {
        name: module
        for name, module in network.named_modules()
        if is_adaptable(module) and not name.startswith(inside or ("\0",))
    }


def is_adaptable(module: nn.Module) -> bool:
    """Whether a module is y = W x + b with a W that can be read."""
    return isinstance(module, nn.Linear | nn.Conv2d | PackedLinear | QuantisedLinear)


def weight_shape(layer: nn.Module) -> tuple[int, ...]:
    """[out, in] of a linear layer, [out, in / groups, height, width] of a convolution; reads no weight."""
    if isinstance(layer, nn.Conv2d):
        return tuple(layer.weight.shape)
    return int(layer.out_features), int(layer.in_features)  # type: ignore[arg-type]


def choose(layers: Mapping[str, nn.Module], patterns: Mapping[str, int]) -> dict[str, int]:
    """Rank by name of the layers that the glob patterns choose; the last one that matches counts.

    Rank 0 leaves a layer out. ValueError for a negative rank, a pattern that matches no layer (naming the
    nearest), or when no layer is left.
    """
    chosen: dict[str, int] = {}
    for pattern, rank in patterns.items():
        if rank < 0:
            raise ValueError(f"LoRA layers {pattern!r}: expected a rank of at least 0, found {rank}")
        matching = [name for name in layers if fnmatchcase(name, pattern)]
        if not matching:
            raise ValueError(f"LoRA layers {pattern!r}: matches no layer; {near(pattern, layers)}")
        chosen |= dict.fromkeys(matching, rank)
    ranks = {name: chosen[name] for name in layers if chosen.get(name)}
    if not ranks:
        raise ValueError(f"LoRA layers {dict(patterns)}: choose no layer; give one of them a rank above 0")
    return ranks


def near(pattern: str, layers: Iterable[str]) -> str:
    """The end of a message about a pattern that matches nothing: what names end like its last words."""
    words = pattern.lstrip("*.")
    length = words.count(".") + 1
    return nearest(words, {".".join(name.split(".")[-length:]) for name in layers})


def find(layers: Mapping[str, nn.Module], name: str) -> nn.Module:
    """The layer of that name; ValueError names the nearest one there is."""
    if name not in layers:
        raise ValueError(f"LoRA: the network has no layer {name!r}; {nearest(name, layers)}")
    return layers[name]
