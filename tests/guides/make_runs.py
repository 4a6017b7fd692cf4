"""Trains every network as small as can be, in one process; run by conftest.py in a scratch workspace.

Leaves outputs/tiny as the tiny experiments do, and outputs/demo under the demo's names with tiny networks.
"""

import shutil
import sys

from train.__main__ import main as train

TINY = ["stage_a", "stage_b", "previewer", "stage_c", "lora", "controlnet", "ip_adapter", "lcm"]
SHORT = ["run.num_steps=2", "run.save_every=2", "run.sample_every=0", "run.log_every=2"]
NAMES = {"controlnet": "controlnet_canny"}  # in the demo
TOKEN = 'recipe.tokens={"[pillar]": "[a-z]"}'


def main() -> int:
    """Returns the exit status of what went wrong first, or 0."""
    for name in TINY:
        if status := train([f"experiment=tiny/{name}", "data.shards=data/mine", *SHORT]):
            return status
    for name in TINY:
        shutil.copytree(f"outputs/tiny/{name}", f"outputs/demo/{NAMES.get(name, name)}")
    shutil.rmtree("outputs/demo/lora")
    return train(
        ["experiment=tiny/lora", "data.shards=data/mine", "run.dir=outputs/demo/lora", TOKEN, *SHORT]
    )


if __name__ == "__main__":
    sys.exit(main())
