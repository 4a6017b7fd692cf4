"""Files with tensors in them: safetensors, the index of several, and those of `torch.save`."""

from pathlib import Path
from typing import Any, NamedTuple

from modules.weights.files import opened, read_index
from modules.weights.headers import parse_header
from modules.weights.lazy import LazyTensor, lazy_state
from modules.weights.pickled import ENDINGS, read_pickled
from modules.weights.writing import DTYPES


class Source(NamedTuple):
    """What a file holds: its tensors by the names they have there, and our header, {} where there is none."""

    state: dict[str, LazyTensor]
    header: dict[str, Any]


def open_source(path: str | Path, ema: bool = True) -> Source:
    """The tensors of a file, of which only names and shapes are read at once.

    path: a safetensors file, the index (.json) of one in several parts, or a file of `torch.save`; ema: as in
    `read_pickled`. FileNotFoundError, or ValueError for a file that is none of these or not whole.
    """
    path = Path(path)
    if path.suffix == ".json":
        return open_index(path)
    if path.suffix in ENDINGS and path.is_file():
        return Source(lazy_state(read_pickled(path, ema)), {})
    file = opened(path)
    state = {name: _lazy(path, file, name) for name in file.keys()}  # noqa: SIM118
    return Source(state, parse_header(path, file.metadata()))


def open_index(path: Path) -> Source:
    """The tensors of the files that an index names. ValueError when one of them lacks a tensor."""
    files = read_index(path)
    parts = {file: open_source(path.with_name(file)) for file in sorted(set(files.values()))}
    state = {}
    for name, file in files.items():
        if name not in parts[file].state:
            raise ValueError(f"{path}: {file} has no tensor {name}")
        state[name] = parts[file].state[name]
    return Source(state, next(iter(parts.values())).header)


def _lazy(path: Path, file: Any, name: str) -> LazyTensor:
    view = file.get_slice(name)
    if view.get_dtype() not in DTYPES:
        raise ValueError(f"{path}: {name}: tensors of {view.get_dtype()} cannot be read")
    return LazyTensor(tuple(view.get_shape()), DTYPES[view.get_dtype()], lambda: file.get_tensor(name))
