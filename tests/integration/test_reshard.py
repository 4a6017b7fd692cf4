"""What two ranks saved is read by one, three and four, and in other modes: same state, same next loss."""

import csv
import json
import sys
from pathlib import Path

import pytest
import torch

from tests.integration.launching import free_ports, launched
from tests.integration.recipe_cases import RECIPES
from tests.integration.reshard_worker import CASES, SAVED_STEP
from tests.integration.saved import saved_tensors, saved_texts

WORKER = Path(__file__).parent / "reshard_worker.py"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, shards: Path) -> Path:
    """The runs of all cases."""
    folder = tmp_path_factory.mktemp("reshard")
    settings = {
        "name": "test",
        "run": {
            "num_steps": SAVED_STEP + 1,
            "log_every": 1,
            "save_every": SAVED_STEP,
            "keep_last": 3,
            "num_samples": 1,
            "device": "cpu",
            "num_threads": 1,
            "ema": {"decay": 0.5},
        },
        "data": {
            "shards": str(shards),
            "image_size_px": 32,
            "multiple_px": 32,
            "aspect_ratios": ["1/1"],
            "num_workers": 0,
            "split": "samples",
        },
        "optim": {"lr": 1e-3},
        **RECIPES["stage_c"],
    }
    (folder / "settings.json").write_text(json.dumps(settings))
    command = [sys.executable, str(WORKER), str(folder), str(free_ports(len(CASES) + 1))]
    done = launched(command)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.mark.parametrize("case", CASES)
def test_the_next_batch_has_the_same_loss(folder: Path, case: str) -> None:
    losses = [float(rows(folder / name)[SAVED_STEP]["loss"]) for name in (case, "same")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_what_is_read_and_written_again_is_the_same_to_the_bit(folder: Path, case: str) -> None:
    last = Path("checkpoints") / f"step_{SAVED_STEP:08d}"
    expected, found = saved_tensors(folder / "saved" / last), saved_tensors(folder / case / last)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    assert {name.split("/")[0] for name in found} == {"weights", "ema", "optimizer", "recipe"}
    assert len(list((folder / case / last).glob("rank_*.safetensors"))) == CASES[case][0]
    states = [saved_texts(folder / name / last)["state.json"] for name in ("saved", case)]
    assert states[0]["counters"] == states[1]["counters"] and states[0]["recipe"] == states[1]["recipe"]


def test_each_rank_writes_about_its_share(folder: Path) -> None:
    """Of sharded tensors its shard; of the others so many that all write the same amount."""
    for case, (size, _) in CASES.items():
        files = (folder / case / "checkpoints" / f"step_{SAVED_STEP:08d}").glob("rank_*.safetensors")
        sizes = [path.stat().st_size for path in files]
        assert max(sizes) < 1.5 * sum(sizes) / size, case


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open() as file:
        return list(csv.DictReader(file))
