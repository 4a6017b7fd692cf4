"""Tensors are read out of safetensors bytes by their place, and only when the header tells the truth."""

import json
import struct
from typing import Any

import pytest
import torch
from safetensors.torch import load
from torch import Tensor

from modules.weights.tensors import MAX_HEADER_BYTES, parse_all, parse_tensors, tensor_bytes

TENSORS = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor([1.5, -2.0])}
SHAPES = {"b": (2,), "a": (2, 3)}


def parsed(data: bytes, shapes: Any = SHAPES, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    return parse_tensors(lambda start, count: data[start : start + count], len(data), shapes, dtype)


def with_header(header: bytes, numbers: bytes = b"\0" * 32, length: int | None = None) -> bytes:
    return struct.pack("<Q", len(header) if length is None else length) + header + numbers


def entry(**changes: Any) -> bytes:
    return json.dumps({"b": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], **changes}}).encode()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_others_can_read_what_is_written_and_it_comes_back(dtype: torch.dtype) -> None:
    tensors = {name: tensor.to(dtype) for name, tensor in TENSORS.items()}
    data = tensor_bytes(tensors)
    assert list(parsed(data, dtype=dtype)) == ["b", "a"]
    for found in (parsed(data, dtype=dtype), load(data)):
        assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())


def test_all_tensors_can_be_read_at_once() -> None:
    found = parse_all(tensor_bytes(TENSORS))
    assert found.keys() == TENSORS.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in TENSORS.items())


@pytest.mark.parametrize("change", [{"shape": [0]}, {"shape": [-2]}, {"shape": 2}, {"dtype": "F99"}])
def test_a_tensor_without_size_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="b: "):
        parse_all(with_header(entry(**change)))


def test_only_what_is_named_is_read() -> None:
    data = tensor_bytes({**TENSORS, "large": torch.zeros(100_000)})
    read = 0

    def some(start: int, count: int) -> bytes:
        nonlocal read
        read += count
        return data[start : start + count]

    parse_tensors(some, len(data), SHAPES, torch.float32)
    assert read < 500


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "header of 0"),
        (b"\xff" * 20, "header of"),
        (with_header(b"{}", length=MAX_HEADER_BYTES + 1, numbers=b" " * (MAX_HEADER_BYTES + 9)), "header of"),
        (with_header(b"{]"), "not JSON"),
        (with_header(b"[" * 100_000), "not JSON"),
        (with_header(b"[1]"), "a list, not an object"),
        (with_header(b"{}"), "holds no tensor b"),
        (with_header(b'{"b": 3}'), "found 3"),
        (with_header(entry(shape=[3])), "expected"),
        (with_header(entry(shape=[10**12])), "expected"),
        (with_header(entry(dtype="F64")), "expected"),
        (with_header(entry(data_offsets=[0, 9])), "said to lie"),
        (with_header(entry(data_offsets=[-8, 0])), "said to lie"),
        (with_header(entry(data_offsets=[8, 0])), "said to lie"),
        (with_header(entry(data_offsets=[28, 36])), "said to lie"),
        (with_header(entry(data_offsets=[0, 8.0])), "no place"),
        (with_header(entry(data_offsets=[False, 8])), "no place"),
        (with_header(entry(data_offsets=7)), "no place"),
    ],
)
def test_a_header_that_lies_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parsed(data, {"b": (2,)})
