"""Writes safetensors files tensor by tensor, so that no more than one of them need be in memory."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from modules.weights.lazy import LazyTensor, State
from modules.whole_files import whole_file

CODES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
DTYPES = {code: dtype for dtype, code in CODES.items()}
ALIGNMENT_BYTES = 8


def write_tensors(
    path: str | Path,
    state: State,
    metadata: Mapping[str, str],
    on_bytes: Callable[[int], None] = lambda num_bytes: None,
) -> None:
    """Write a safetensors file, which gets its name when it is whole and on the disk; its folder is made.

    on_bytes: called after each tensor with its size. ValueError for a number format that the file format
    does not know.
    """
    # The widest numbers first, so that each tensor begins at a multiple of their width.
    names = sorted(state, key=lambda name: (-state[name].dtype.itemsize, name))
    with whole_file(Path(path)) as file:
        file.write(file_head({name: state[name] for name in names}, metadata))
        for name in names:
            file.write(raw_bytes(name, state[name]))
            on_bytes(state[name].num_bytes)


def file_head(state: State, metadata: Mapping[str, str]) -> bytes:
    """The length of the description, and the description: metadata, and where which tensor lies."""
    entries: dict[str, object] = {"__metadata__": dict(metadata)}
    position = 0
    for name, tensor in state.items():
        if tensor.dtype not in CODES:
            raise ValueError(f"{name}: tensors of {tensor.dtype} cannot be written to a safetensors file")
        offsets = [position, position + tensor.num_bytes]
        entries[name] = {
            "dtype": CODES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": offsets,
        }
        position = offsets[1]
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % ALIGNMENT_BYTES)
    return len(text).to_bytes(8, "little") + text


def raw_bytes(name: str, tensor: LazyTensor) -> memoryview:
    """The numbers of a tensor, row after row."""
    read = tensor.read().detach().cpu().contiguous()
    assert (tuple(read.shape), read.dtype) == (tensor.shape, tensor.dtype), name
    return read.reshape(-1).view(torch.uint8).numpy().data
