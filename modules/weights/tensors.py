"""Single tensors out of safetensors bytes that lie anywhere in a larger file, and such bytes from tensors."""

import json
import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from modules.schema import kind_of
from modules.weights.lazy import lazy_state
from modules.weights.writing import CODES, DTYPES, file_head, raw_bytes

MAX_HEADER_BYTES = 1 << 20


def tensor_bytes(tensors: Mapping[str, Tensor]) -> bytes:
    """Tensors as the bytes of a safetensors file."""
    state = lazy_state(tensors)
    return b"".join([file_head(state, {}), *(raw_bytes(name, tensor) for name, tensor in state.items())])


def parse_tensors(
    read: Callable[[int, int], bytes],
    num_bytes: int,
    shapes: Mapping[str, tuple[int, ...]],
    dtype: torch.dtype,
) -> dict[str, Tensor]:
    """Some tensors of a safetensors file, in the order of `shapes`, whose sizes are known before.

    read: (offset, number of bytes) -> bytes of the file. num_bytes: of the file. Nothing beyond the header
    and the tensors named is read. Raises ValueError, one line, when the header is not sound, or a tensor is
    missing or of another shape or number format.
    """
    entries, start = _header(read, num_bytes)
    tensors = {}
    for name, shape in shapes.items():
        first, last = _place(name, entries.get(name), shape, dtype, num_bytes - start)
        data = read(start + first, last - first)
        tensors[name] = torch.frombuffer(bytearray(data), dtype=dtype).reshape(shape)
    return tensors


def parse_all(data: bytes) -> dict[str, Tensor]:
    """All tensors of a safetensors file. Raises ValueError as `parse_tensors`."""
    read = partial(_part, data)
    entries, _ = _header(read, len(data))
    tensors: dict[str, Tensor] = {}
    for name, entry in entries.items():
        if name == "__metadata__":
            continue
        shape, code = (entry.get(key) for key in ("shape", "dtype")) if isinstance(entry, dict) else (0, 0)
        if not isinstance(shape, list) or not all(type(side) is int and side > 0 for side in shape):
            raise ValueError(f"{name}: has no shape, found {entry!r:.100}")
        if not isinstance(code, str) or code not in DTYPES:
            raise ValueError(f"{name}: has no known number format, found {entry!r:.100}")
        tensors |= parse_tensors(read, len(data), {name: tuple(shape)}, DTYPES[code])
    return tensors


def _part(data: bytes, start: int, count: int) -> bytes:
    return data[start : start + count]


def _header(read: Callable[[int, int], bytes], num_bytes: int) -> tuple[dict[str, Any], int]:
    """The entries of the header, and where the numbers begin."""
    length = int.from_bytes(read(0, 8), "little") if num_bytes >= 8 else 0
    if not 2 <= length <= min(num_bytes - 8, MAX_HEADER_BYTES):
        raise ValueError(f"not safetensors: {num_bytes} bytes with a header of {length}")
    try:
        entries = json.loads(read(8, length))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not safetensors: the header is not JSON ({error})") from error
    if not isinstance(entries, dict):
        raise ValueError(f"not safetensors: the header is {kind_of(entries)}, not an object")
    return entries, 8 + length


def _place(
    name: str, entry: Any, shape: tuple[int, ...], dtype: torch.dtype, num_bytes: int
) -> tuple[int, int]:
    """Where a tensor's numbers begin and end, if what the header says of it is what is expected."""
    if entry is None:
        raise ValueError(f"holds no tensor {name}")
    expected = {"dtype": CODES[dtype], "shape": list(shape)}
    found = {key: entry.get(key) for key in expected} if isinstance(entry, dict) else entry
    if found != expected:
        raise ValueError(f"{name}: expected {expected}, found {found!r:.100}")
    place = entry.get("data_offsets")
    if not isinstance(place, list) or len(place) != 2 or not all(type(end) is int for end in place):
        raise ValueError(f"{name}: has no place in the file")
    first, last = place
    if not 0 <= first <= last <= num_bytes or last - first != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"{name}: is said to lie at {place} of {num_bytes} bytes")
    return first, last
