"""Official LoRA files number their layers: which layer a number means, from the network's sizes.

Numbers follow the network's own order of modules; queries, keys and values are one layer, in_proj, behind the
output projection of the same attention.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import combinations

from torch import Tensor, nn

from modules.adapters.layers import adaptable_layers, weight_shape
from modules.adapters.lora_state import PROJECTIONS, Factors, LoRAState, split_projections

# In the order in which the released networks hold them.
WORDS = (
    *("clip_txt_mapper", "clip_txt_pooled_mapper", "clip_img_mapper", "effnet_mapper", "pixels_mapper"),
    *("clip_mapper", "embedding", "down_blocks", "down_downscalers", "down_repeat_mappers", "up_blocks"),
    *("up_upscalers", "up_repeat_mappers", "clf", "depthwise", "channelwise", "mapper", "mapper_sca"),
    *("mapper_crp", "attention", "kv_mapper", "attn", "out_proj", "in_proj", "blocks"),
)
USUAL_FILTERS = (".attn",)  # of the published configuration
Shape = tuple[int, ...]


def official_order(names: Iterable[str]) -> list[str]:
    """Layers' names, the three projections as one in_proj, in the order of official numbers."""
    fused = dict.fromkeys(fused_name(name) for name in names)
    return sorted(fused, key=lambda name: [_rank(word) for word in name.split(".")])


def fused_name(name: str) -> str:
    """The name of the layer that a projection is packed in; other names as they are."""
    stem, _, last = name.rpartition(".")
    return f"{stem}.in_proj" if last in PROJECTIONS else name


def name_layers(state: LoRAState, network: nn.Module, filters: Sequence[str] = ()) -> LoRAState:
    """The state with names in the place of numbers.

    filters: parts of names that the LoRA was trained with (the official `module_filters`); without them they
    are guessed from the shapes. ValueError when the shapes fit no choice of layers, or several.
    """
    if not state.numbered:
        return state
    shapes = official_shapes(network)
    ordered = [state.numbered[number] for number in sorted(state.numbered)]
    names = find_names(shapes, ordered, filters)
    named = replace(state, parts={part: dict(layers) for part, layers in state.parts.items()}, numbered={})
    for name, factors in zip(names, ordered, strict=True):
        named.parts["unet"].update(split_projections(name, on_kernel(factors, shapes[name])))
    return named


def official_shapes(network: nn.Module) -> dict[str, Shape]:
    """Weight shapes of a network's layers by official name, in the official order."""
    layers = adaptable_layers(network)
    shapes = {fused_name(name): weight_shape(layer) for name, layer in layers.items()}
    for name, shape in shapes.items():
        if name.endswith(".in_proj"):
            shapes[name] = (3 * shape[0], *shape[1:])
    return {name: shapes[name] for name in official_order(shapes)}


def find_names(shapes: Mapping[str, Shape], ordered: Sequence[Factors], filters: Sequence[str]) -> list[str]:
    """The names of the numbered factors, in their order."""
    names = [name for name in shapes if any(part in name for part in filters or USUAL_FILTERS)]
    if fits(names, shapes, ordered):
        return names
    found = [] if filters else guesses(shapes, ordered)
    if len(found) != 1:
        number = f"{len(found)} choices" if found else "no choice"
        raise ValueError(
            f"LoRA: {len(ordered)} layers without names fit {number} of the network's layers"
            f"{' with ' + str(list(filters)) if filters else ''}; give the module_filters it was trained with"
        )
    return found[0]


def guesses(shapes: Mapping[str, Shape], ordered: Sequence[Factors]) -> list[list[str]]:
    """All choices of kinds of layers whose shapes are those of the numbered factors."""
    kinds: dict[str, list[str]] = {}
    for name in shapes:
        kinds.setdefault(_kind(name), []).append(name)
    found = []
    for number in range(1, len(kinds) + 1):
        for chosen in combinations(kinds, number):
            if sum(len(kinds[kind]) for kind in chosen) != len(ordered):
                continue
            members = {name for kind in chosen for name in kinds[kind]}
            names = [name for name in shapes if name in members]
            if fits(names, shapes, ordered):
                found.append(names)
    return found


def fits(names: Sequence[str], shapes: Mapping[str, Shape], ordered: Sequence[Factors]) -> bool:
    """Whether the factors are for weights of these layers' shapes, kernels aside."""
    return len(names) == len(ordered) and all(
        shapes[name][:2] == (factors.up.shape[0], factors.down.shape[1])
        for name, factors in zip(names, ordered, strict=True)
    )


def on_kernel(factors: Factors, shape: Shape) -> Factors:
    """Factors of a convolution, of which the official form changes all places of a kernel alike."""
    if len(shape) == 2:
        return factors
    rank, per_group = factors.down.shape
    down = factors.down[:, :, None, None].expand(rank, per_group, *shape[2:]).contiguous()
    return factors._replace(down=down, up=factors.up[:, :, None, None])


def off_kernel(name: str, factor: Tensor) -> Tensor:
    """The other way; ValueError when the places of the kernel change differently."""
    middle = factor.flatten(2)[:, :, 0] if factor.ndim == 4 else factor
    if factor.ndim == 4 and not bool((factor == middle[:, :, None, None]).all()):
        raise ValueError(f"LoRA: {name}: an official file can only change all places of a kernel alike")
    return middle


def _rank(word: str) -> int:
    if word.isdigit():
        return int(word)
    return WORDS.index(word) if word in WORDS else len(WORDS)


def _kind(name: str) -> str:
    words = [word for word in name.split(".") if not word.isdigit()]
    return words[1] if words[0] in ("down_blocks", "up_blocks") else words[0]
