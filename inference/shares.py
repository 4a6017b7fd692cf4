"""Several processes of one launcher, each with its share: which device is its own, and when to end."""

import os
import time
from datetime import timedelta

import torch

from modules.processes import Place

SECONDS_BETWEEN_LOOKS = 0.2
TIMEOUT = timedelta(seconds=60)  # of one look


def own_device(device: str, own: Place) -> str:
    """A GPU for each process of a machine, where `auto` is asked for and there are any."""
    if device == "auto" and own.size > 1 and torch.cuda.is_available():
        return f"cuda:{own.local_rank % torch.cuda.device_count()}"
    return device


def wait_for_others(own: Place) -> None:
    """Return when all processes of torchrun have come here; at once under any other launcher.

    torchrun ends all processes as soon as one ends with an error: one that could not make some of its
    pictures must not end before the others have made theirs.
    """
    env = os.environ
    host, port = env.get("MASTER_ADDR", ""), int(env.get("MASTER_PORT", 0))
    if own.size == 1 or env.get("TORCHELASTIC_USE_AGENT_STORE") != "True" or not port:
        return
    store = torch.distributed.TCPStore(host, port, is_master=False, timeout=TIMEOUT)
    key = f"kaskade/done/{env.get('TORCHELASTIC_RESTART_COUNT', 0)}"
    store.add(key, 1)
    while store.add(key, 0) < own.size:
        time.sleep(SECONDS_BETWEEN_LOOKS)
