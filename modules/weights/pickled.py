"""State dicts in files of `torch.save` (.pt, .ckpt, .bin), read without running anything in them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from modules.weights.pickle_scan import check_pickled

ENDINGS = (".pt", ".ckpt", ".bin")
WRAPPERS = ("state_dict", "model", "module")
AVERAGED = ("ema", "ema_state_dict", "model_ema")


def read_pickled(path: str | Path, ema: bool = True) -> dict[str, Tensor]:
    """The tensors of a state dict, which may lie inside {"state_dict": …}, {"model": …} or {"ema": …}.

    ema: take averaged weights where there are both. ValueError, one line, when the file holds no state dict
    or anything but plain data, or names with more numbers than it holds.
    """
    path = Path(path)
    try:
        check_pickled(path)
        content = load_plain(path)
        found = state_inside(content, (*AVERAGED, *WRAPPERS) if ema else (*WRAPPERS, *AVERAGED))
        check_room(found, path.stat().st_size)
    except OSError:
        raise
    except Exception as error:  # torch's unpickler raises all kinds on files that are not whole
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ValueError(f"{path}: not a file of plain tensors ({reason})") from error
    if not found:
        raise ValueError(f"{path}: no state dict in it; expected names with tensors{_names(content)}")
    return found


def load_plain(path: Path) -> Any:
    """What a file of `torch.save` holds, mapped into memory where its format allows it."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except RuntimeError as error:
        if "mmap" not in str(error):
            raise
        return torch.load(path, map_location="cpu", weights_only=True)


def state_inside(content: Any, wrappers: tuple[str, ...]) -> dict[str, Tensor]:
    """The tensors of a mapping, or of the first of these entries of it that has any; {} if there are none."""
    if not isinstance(content, Mapping):
        return {}
    for wrapper in wrappers:
        if found := state_inside(content.get(wrapper), wrappers):
            return found
    return {str(name): value for name, value in content.items() if isinstance(value, Tensor)}


def check_room(state: Mapping[str, Tensor], num_bytes: int) -> None:
    """Raise ValueError for tensors that, written out, are far larger than the file (a number repeated, say).

    Also for those that are no plain arrays. Twice its size is allowed: two names may share one tensor.
    """
    for name, tensor in state.items():
        if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.is_quantized:
            raise ValueError(f"{name} is not a plain tensor")
    total = sum(tensor.numel() * tensor.itemsize for tensor in state.values())
    if total > 2 * num_bytes:
        raise ValueError(f"its tensors would take {total} bytes, the file has {num_bytes}")


def _names(content: Any) -> str:
    return f", found {', '.join(map(str, list(content)[:5]))}" if isinstance(content, Mapping) else ""
