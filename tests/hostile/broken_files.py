"""Weight files as no honest tool writes them: heads that lie, pickles that call, archives that swell."""

import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch

WORD = {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}
BODY = b"\0" * 16


def safetensors(path: Path, head: Any, body: bytes = BODY, length: int | None = None) -> Path:
    """A file with this head (bytes, or what becomes JSON), which may lie about its own length."""
    raw = head if isinstance(head, bytes) else json.dumps(head).encode()
    path.write_bytes((len(raw) if length is None else length).to_bytes(8, "little") + raw + body)
    return path


def with_header(path: Path, header: Any, tensors: dict[str, torch.Tensor] | None = None) -> Path:
    """A sound file whose header (text, or what becomes JSON) says something."""
    from safetensors.torch import save_file

    text = header if isinstance(header, str) else json.dumps(header)
    save_file(tensors or {"a": torch.zeros(4)}, path, {"kaskade": text})
    return path


class Calls:
    """Pickled, it calls a function when it is read."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> Any:
        return self.function, self.arguments


def archive(path: Path, content: bytes, compression: int = zipfile.ZIP_STORED, **others: bytes) -> Path:
    """What `torch.save` writes, around a pickle of one's own."""
    with zipfile.ZipFile(path, "w", compression) as file:
        file.writestr("archive/data.pkl", content)
        file.writestr("archive/version", "3\n")
        file.writestr("archive/byteorder", "little")
        for name, data in others.items():
            file.writestr(f"archive/data/{name}", data)
    return path


def doubling(times: int) -> bytes:
    """A short pickle of bytes that double at every call, by a function that torch's own check lets pass."""
    content = b"X\x01\0\0\0a"
    for _ in range(times):
        content = b"c_codecs\nencode\n(" + content + b"X\x06\0\0\0utf-16tR"
    return b"\x80\x02}X\x01\0\0\0a" + content + b"s."


def calling(canary: Path) -> bytes:
    """A pickle that leaves a file behind when it is run."""
    return pickle.dumps({"a": Calls(open, str(canary), "w")}, protocol=2)
