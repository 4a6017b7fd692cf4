"""torchrun --max-restarts goes on by itself when a rank is killed, as if nothing had been."""

import json
from pathlib import Path

import torch

from modules.weights import read_tensors
from tests.integration.launching import TORCHRUN, launched
from tests.integration.recipe_cases import RECIPES

WORKER = Path(__file__).parent / "restart_worker.py"


def test_a_restarted_run_equals_one_that_lost_no_rank(shards: Path, tmp_path: Path) -> None:
    for name in ("whole", "restarted"):
        run = {
            "dir": str(tmp_path / name),
            "num_steps": 8,
            "save_every": 2,
            "num_samples": 1,
            "device": "cpu",
        }
        data = {"shards": str(shards), "image_size_px": 32, "aspect_ratios": ["1/1"], "batch_size": 2}
        plain = {"name": "test", "run": run, "data": data | {"num_workers": 1, "split": "samples"}}
        (tmp_path / f"{name}.json").write_text(json.dumps({**plain, **RECIPES["previewer"]}))
    paths = [str(tmp_path / f"{name}.json") for name in ("restarted", "whole")]
    command = [*TORCHRUN, "--standalone", "--nproc-per-node=2", "--max-restarts=1", str(WORKER), *paths]
    done = launched(command)
    assert done.returncode == 0, done.stderr
    said = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert len(said) == 1 and "rank 1 on" in said[0] and "died" in said[0]
    starts = json.loads((tmp_path / "restarted" / "run.json").read_text())["starts"]
    # The checkpoint of step 4 may not have been whole yet.
    assert len(starts) == 2 and starts[1]["from_step"] in (2, 4) and starts[1]["step"] == 8
    for path in (tmp_path / "whole" / "weights").iterdir():
        expected, found = read_tensors(path), read_tensors(tmp_path / "restarted" / "weights" / path.name)
        assert all(torch.equal(expected[key], found[key]) for key in expected), path.name
