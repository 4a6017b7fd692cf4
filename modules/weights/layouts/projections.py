"""Query, key and value projections: packed in the official files, three tensors in those of other tools."""

import re

from modules.weights.lazy import LazyTensor, State, stacked, thirds

LETTERS = "qkv"
PACKED = re.compile(r"(?P<block>.*\.attention)\.attn\.in_proj_(?P<kind>weight|bias)")
# ComfyUI has them in `attention.attn`, diffusers in `attention`.
SEPARATE = re.compile(r"(?P<block>.*\.attention)(\.attn)?\.to_(?P<letter>[qkv])\.(?P<kind>weight|bias)")


def packed(state: State) -> dict[str, LazyTensor]:
    """The same tensors with every to_q, to_k and to_v in one in_proj.

    ValueError when one of the three is missing, or when they do not fit together.
    """
    result: dict[str, LazyTensor] = {}
    groups: dict[str, dict[str, LazyTensor]] = {}
    for name, tensor in state.items():
        if found := SEPARATE.fullmatch(name):
            target = f"{found['block']}.attn.in_proj_{found['kind']}"
            groups.setdefault(target, {})[found["letter"]] = tensor
        else:
            result[name] = tensor
    for target, group in groups.items():
        if missing := set(LETTERS) - set(group):
            raise ValueError(f"{target}: made of to_q, to_k and to_v, but to_{min(missing)} is missing")
        try:
            result[target] = stacked([group[letter] for letter in LETTERS])
        except ValueError as error:
            raise ValueError(f"{target}: {error}") from error
    return result


def separated(state: State, parent: str) -> dict[str, LazyTensor]:
    """The same tensors with every in_proj cut into to_q, to_k and to_v.

    parent: what they are children of, "attention.attn" or "attention".
    """
    result: dict[str, LazyTensor] = {}
    for name, tensor in state.items():
        if found := PACKED.fullmatch(name):
            place = found["block"].removesuffix("attention") + parent
            for letter, third in zip(LETTERS, thirds(tensor), strict=True):
                result[f"{place}.to_{letter}.{found['kind']}"] = third
        else:
            result[name] = tensor
    return result
