"""Devices by name."""

import torch


def named_device(name: str, setting: str, choices: str) -> torch.device:
    """The device of that name. ValueError, which names the setting, if there is none such, or not here."""
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"{setting}: found {name!r}; expected one of: {choices}") from None
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"{setting}: {name!r} cannot be used here ({str(error).splitlines()[0]})") from None
    return device
