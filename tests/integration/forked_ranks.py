"""Ranks forked after all is loaded: python -m tests.integration.forked_ranks WORKER SIZE MACHINES PORT …

Each calls `main` of the module WORKER of this folder with the arguments that follow. Loading takes longer
than all that they do.
"""

import importlib
import sys
from functools import partial

from tests.integration.launching import fork, status_of


def main(worker: str, size: int, machines: int, port: int, arguments: list[str]) -> int:
    module = importlib.import_module(f"tests.integration.{worker}")
    live = partial(module.main, arguments)
    children = [fork(live, None, (rank, size, port, machines)) for rank in range(size)]
    return max([abs(status_of(child)) for child in children])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], *map(int, sys.argv[2:5]), sys.argv[5:]))
