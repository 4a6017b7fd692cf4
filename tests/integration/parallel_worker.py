"""One rank of test_distributed.py: parallel_worker.py CONFIGS.json checks laws, then runs every config."""

import sys
from pathlib import Path

from tests.integration import gradient_laws, mesh_laws, sharding_laws
from tests.integration.train_worker import run_all
from train.parallel.world import join, leave

if __name__ == "__main__":
    world = join("cpu")
    if world.size == 2:
        gradient_laws.check_batchnorm(world.rank)
        gradient_laws.check_averaging(world.rank)
        sharding_laws.check_all(world)
    else:
        mesh_laws.check_all(world)
    run_all(Path(sys.argv[1]))
    leave(0)
