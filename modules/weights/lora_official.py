"""The official LoRA layout: weights.<number>.lora_down and lora_up, scale 1 / rank, no names.

A file of ours says in its header what the numbers mean and what was multiplied into `up`, so that it is read
back as it was (bit for bit where alpha and rank are powers of two).
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from modules.adapters.lora_state import PROJECTIONS, Factors, LoRAState, split_projections
from modules.adapters.official_names import off_kernel, official_order, on_kernel

KEY = re.compile(r"weights\.(?P<number>\d+)\.lora_(?P<factor>down|up)")
ROWS, ROW_NUMBERS = "embeddings.embeddings", "embeddings.indices"
BLOCKS = 4  # ranks of a packed layer, in those of a projection: 3 would do, but 4 keeps numbers exact
Entry = dict[str, Any]


def is_official(keys: Iterable[str]) -> bool:
    """Whether these are the names of an official file's tensors (not all of them: of one at least)."""
    return any(KEY.fullmatch(key) for key in keys)


def take_rows(tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[int, Tensor]]:
    """A file's other tensors, and the trained token rows [width] by number; ValueError for other shapes."""
    if not {ROWS, ROW_NUMBERS} <= tensors.keys():
        return tensors, {}
    others = {key: tensor for key, tensor in tensors.items() if key not in (ROWS, ROW_NUMBERS)}
    rows, numbers = tensors[ROWS], tensors[ROW_NUMBERS]
    whole = not numbers.is_floating_point() and (numbers >= 0).all()
    if not whole or numbers.ndim != 1 or rows.ndim != 2 or len(rows) != len(numbers):
        found = f"{list(rows.shape)} and {list(numbers.shape)} of {numbers.dtype}"
        raise ValueError(f"LoRA: expected rows [n, width] and their n numbers, found {found}")
    return others, dict(zip(numbers.tolist(), rows, strict=True))


def write_rows(rows: Mapping[int, Tensor]) -> dict[str, Tensor]:
    """The other way. Files of other layouts keep them too: they lose nothing, and work here."""
    if not rows:
        return {}
    return {ROWS: torch.stack(list(rows.values())), ROW_NUMBERS: torch.tensor(list(rows))}


def read_official(tensors: Mapping[str, Tensor], numbering: list[Entry]) -> tuple[LoRAState, list[str]]:
    """The LoRA in an official file, and the names that are not understood.

    numbering: from our header, what each number is; [] leaves them to `name_layers`, with the network.
    """
    state, unknown = LoRAState(), []
    found: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        if match := KEY.fullmatch(key):
            found.setdefault(int(match["number"]), {})[match["factor"]] = tensor
        else:
            unknown.append(key)
    one = torch.ones(())
    numbered = {n: Factors(pair["down"], pair["up"], one) for n, pair in found.items() if len(pair) == 2}
    unknown += [f"weights.{number}" for number, pair in found.items() if len(pair) != 2]
    if not numbering:
        state.numbered.update(numbered)
    elif len(numbering) != len(numbered):
        raise ValueError(f"LoRA: its header names {len(numbering)} layers, it holds {len(numbered)}")
    for number, entry in enumerate(numbering):
        state.parts["unet"].update(unpacked(numbered[number], entry))
    return state, unknown


def write_official(state: LoRAState) -> tuple[dict[str, Tensor], list[Entry]]:
    """The tensors of an official file and its numbering. ValueError for what the layout has no place for."""
    layers = state.parts["unet"]
    if state.parts["text_encoder"] or any(factors.dora_scale is not None for factors in layers.values()):
        raise ValueError("LoRA: the official layout has no place for a text encoder's layers or for DoRA")
    if state.tokens and not state.rows:
        raise ValueError(
            "LoRA: the official layout numbers tokens by the rows of a text encoder's table; "
            "leave the tokens out or give their rows"
        )
    tensors, numbering = {}, []
    pairs = dict(state.numbered)
    for number, name in enumerate(official_order(layers)):
        pairs[number], entry = packed(name, layers)
        numbering.append(entry)
    for number, factors in pairs.items():
        tensors[f"weights.{number}.lora_down"] = factors.down
        tensors[f"weights.{number}.lora_up"] = factors.up
    return tensors, numbering


def packed(name: str, layers: Mapping[str, Factors]) -> tuple[Factors, Entry]:
    """The factors of one official layer, scaled for its scale of 1 / rank, and what was done to them."""
    parts = {last: layers.get(f"{name.removesuffix('in_proj')}{last}") for last in PROJECTIONS}
    whole = layers.get(name)
    members = [whole] if whole is not None else [part for part in parts.values() if part is not None]
    entry: Entry = {
        "name": name,
        "alphas": [None if each.alpha is None else float(each.alpha) for each in members],
        "ranks": [len(each.down) for each in members],
        "kernel": list(members[0].down.shape[2:]),
    }
    if whole is not None:
        down, up = off_kernel(name, whole.down), off_kernel(name, whole.up)
        return Factors(down, up * _factor(whole, len(down))), entry
    entry["projections"] = [last for last, part in parts.items() if part is not None]
    if len(members) == 3 and all(_shares(members[0], each) for each in members[1:]):
        rank = len(members[0].down)
        up = torch.cat([each.up for each in members])
        return Factors(members[0].down, up * _factor(members[0], rank)), {**entry, "shared": True}
    return block_diagonal(members, entry["projections"]), entry


def block_diagonal(members: list[Factors], projections: list[str]) -> Factors:
    """Projections with factors of their own as one layer: their downs side by side, each up in its block."""
    rank = BLOCKS * max(len(each.down) for each in members)
    width, rows = members[0].down.shape[1], members[0].up.shape[0]
    down, up = members[0].down.new_zeros(rank, width), members[0].up.new_zeros(3 * rows, rank)
    start = 0
    for each, projection in zip(members, projections, strict=True):
        block, row = slice(start, start + len(each.down)), PROJECTIONS.index(projection) * rows
        down[block], up[row : row + rows, block] = each.down, each.up * _factor(each, rank)
        start = block.stop
    return Factors(down, up)


def unpacked(factors: Factors, entry: Entry) -> dict[str, Factors]:
    """The layers that `packed` made one official layer of."""
    name, projections = entry["name"], entry.get("projections")
    rank, alphas = len(factors.down), entry["alphas"]
    if projections is None or entry.get("shared"):
        restored = _restored(factors.down, factors.up, alphas[0], rank)
        kernel = entry["kernel"]
        return split_projections(name, on_kernel(restored, (0, 0, *kernel)) if kernel else restored)
    rows, start, layers = len(factors.up) // 3, 0, {}
    for projection, alpha, own_rank in zip(projections, alphas, entry["ranks"], strict=True):
        block, row = slice(start, start + own_rank), PROJECTIONS.index(projection) * rows
        part = _restored(factors.down[block], factors.up[row : row + rows, block], alpha, rank)
        layers[name.replace("in_proj", projection)] = part
        start = block.stop
    return layers


def _restored(down: Tensor, up: Tensor, alpha: float | None, rank: int) -> Factors:
    factors = Factors(down, up, None if alpha is None else torch.tensor(alpha))
    return factors._replace(up=up / (_factor(factors, rank) or 1.0))  # at alpha 0 nothing of `up` was left


def _factor(factors: Factors, rank: int) -> float:
    """What makes the official scale 1 / rank the scale of these factors."""
    own = len(factors.down)
    return rank * (own if factors.alpha is None else float(factors.alpha)) / own


def _shares(first: Factors, other: Factors) -> bool:
    alike = torch.equal(first.down, other.down) if first.down.shape == other.down.shape else False
    return alike and _factor(first, 1) == _factor(other, 1)
