"""One rank of test_distributed.py: checks laws, then runs every config of a file."""

from pathlib import Path

from tests.integration import gradient_laws, mesh_laws, sharding_laws
from tests.integration.train_worker import run_all
from train.parallel.world import join


def main(arguments: list[str]) -> int:
    world = join("cpu")
    if world.size == 2:
        gradient_laws.check_batchnorm(world.rank)
        gradient_laws.check_averaging(world.rank)
        sharding_laws.check_all(world)
    else:
        mesh_laws.check_all(world)
    run_all(Path(arguments[0]))
    return 0
