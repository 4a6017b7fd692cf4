"""Devices by name, which one is taken where none is named, and what one of them cannot do."""

from collections.abc import Collection

import torch

KINDS = ("cuda", "mps", "cpu")
"""In the order in which they are taken where none is named; mps is the GPU of a Mac."""


def present() -> frozenset[str]:
    """The kinds of devices that are here."""
    is_here = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    return frozenset(kind for kind in KINDS if is_here[kind])


def best(found: Collection[str], is_alone: bool = True) -> str:
    """The kind of device to take of those found. is_alone: False where processes must talk to each other,
    which they cannot from an MPS device (gloo and NCCL know none)."""
    return next(kind for kind in KINDS if kind in found and (is_alone or kind != "mps"))


def named_device(name: str, setting: str, choices: str) -> torch.device:
    """The device of that name, "auto" the best that is here.

    ValueError, which names the setting, if there is none such, or not here.
    """
    if name == "auto":
        return torch.device(best(present()))
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"{setting}: found {name!r}; expected one of: {choices}") from None
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"{setting}: {name!r} cannot be used here ({str(error).splitlines()[0]})") from None
    return device


def has_format(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether numbers can have that format there: old systems of a Mac have no bf16."""
    try:
        torch.zeros(1, dtype=dtype, device=device)
    except (RuntimeError, TypeError):
        return False
    return True


def copies_beside(device: torch.device) -> bool:
    """Whether copies to and from the device may go on beside their caller, who waits for them where needed.

    To and from MPS they may not: nothing holds on to the memory, or says when it is whole. The CPU
    has nothing to go on beside.
    """
    return device.type not in ("mps", "cpu")
