"""Training for exact epochs in three real processes: all end together, and every sample counts once."""

import csv
import io
import json
import tarfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.integration.epochs_worker import train
from tests.integration.launching import run_ranks

SHARDS = [7, 0, 5, 1, 9]  # samples
NUM_BROKEN = 2
KEYS = [f"{number:03d}" for number in range(sum(SHARDS))]
RANKS = 3
WHOLE = [{"field": "number", "op": ">=", "value": NUM_BROKEN}]  # pictures

Settings = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Uneven shards of pictures of two shapes, of which two are broken; the first two keys."""
    folder = tmp_path_factory.mktemp("exact")
    (folder / "shards").mkdir()
    rng, keys = np.random.default_rng(0), iter(KEYS)
    for shard, count in enumerate(SHARDS):
        with tarfile.open(folder / "shards" / f"{shard}.tar", "w") as tar:
            for key in [next(keys) for _ in range(count)]:
                picture = io.BytesIO()
                height = 16 if int(key) % 3 else 32
                pixels = rng.integers(0, 255, 3) + rng.integers(-9, 9, (height, 32, 3))
                Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(picture, "PNG")
                data = b"broken" if int(key) < NUM_BROKEN else picture.getvalue()
                facts = json.dumps({"width_px": 32, "height_px": height, "number": int(key)}).encode()
                for ending, content in {"png": data, "txt": key.encode(), "json": facts}.items():
                    info = tarfile.TarInfo(f"{key}.{ending}")
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
    return folder


@pytest.fixture(scope="module")
def settings(folder: Path) -> Settings:
    def make(name: str, run: dict[str, Any], **data: Any) -> dict[str, Any]:
        plain = {"num_steps": 1000, "log_every": 1, "num_samples": 2, "device": "cpu", "ema": {"decay": 0.5}}
        shapes = {"image_size_px": 32, "multiple_px": 8, "aspect_ratios": ["1/1", "1/2"], "random_ratio": 0.0}
        return {
            "name": "test",
            "run": plain | {"dir": str(folder / name)} | run,
            "recipe": {"name": "colour"},
            "data": {"shards": str(folder / "shards"), "epochs": 2, "num_workers": 0} | shapes | data,
            "optim": {"lr": 0.01},
        }

    return make


@pytest.fixture(scope="module")
def results(folder: Path, settings: Settings) -> dict[str, list[dict[str, Any]]]:
    """What each of three ranks saw, by run."""
    shards = {"split": "shards", "batch_size": 2}
    runs = {
        "samples": settings("samples", {}, split="samples", batch_size=2, filters=WHOLE),
        "shards": settings("shards", {"num_accum": 2}, **shards),
        "first half": settings("halves", {"num_accum": 2, "num_steps": 3}, **shards),
        "second half": settings("halves", {"num_accum": 2}, **shards),
        "nothing left": settings("halves", {"num_accum": 2}, **shards),
        "overfit": settings("overfit", {"num_steps": 20, "repeat_batch": True}, **shards),
    }
    file = folder / "runs.json"
    file.write_text(json.dumps(list(runs.values())))
    run_ranks("epochs_worker", file, size=RANKS)
    of_ranks = [json.loads(Path(f"{file}.{rank}").read_text()) for rank in range(RANKS)]
    return {name: [found[index] for found in of_ranks] for index, name in enumerate(runs)}


def counted(*found: list[dict[str, Any]]) -> Counter[str]:
    """How often each key took part with a share, over ranks and runs."""
    seen = [each for ranks in found for rank in ranks for each in rank["seen"]]
    return Counter(key for _, share, keys in seen if share for key in keys)


def losses(folder: Path) -> list[float]:
    with (folder / "metrics.csv").open() as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


@pytest.mark.parametrize("name", ["samples", "shards"])
def test_every_sample_counts_once_per_epoch_and_all_ranks_end_together(results, name) -> None:
    assert counted(results[name]) == dict.fromkeys(KEYS[NUM_BROKEN:], 2)
    assert len({(rank["step"], len(rank["seen"])) for rank in results[name]}) == 1
    assert not any(rank["interrupted"] for rank in results[name])


def test_shares_make_the_mean_over_ranks_and_micro_batches_one_over_pictures(results) -> None:
    for found in (results[name] for name in ("samples", "shards", "first half", "second half")):
        for step in {step for step, *_ in found[0]["seen"]}:
            micro = [each for rank in found for each in rank["seen"] if each[0] == step]
            num_pictures = sum(len(keys) for _, share, keys in micro if share)
            assert sum(share for _, share, _ in micro) == pytest.approx(len(micro))
            for _, share, keys in micro:
                assert share in (0.0, pytest.approx(len(keys) / num_pictures * len(micro)))


def test_three_processes_have_the_losses_of_one(results, settings, folder) -> None:
    summary, seen = train(settings("one", {}, split="samples", batch_size=6, filters=WHOLE))
    assert summary.step == results["samples"][0]["step"]
    assert losses(folder / "samples") == pytest.approx(losses(folder / "one"), rel=1e-4)
    assert [len(keys) for _, _, keys in seen if len(keys) < 6]  # there are short batches


def test_resumed_in_the_middle_every_sample_still_counts_once(results, folder) -> None:
    halves = results["first half"], results["second half"]
    assert [found[0]["step"] for found in halves] == [3, results["shards"][0]["step"]]
    assert counted(*halves) == dict.fromkeys(KEYS[NUM_BROKEN:], 2)
    assert losses(folder / "halves") == losses(folder / "shards")


def test_a_run_that_has_seen_all_epochs_takes_no_step_more(results) -> None:
    assert all(not rank["seen"] and not rank["interrupted"] for rank in results["nothing left"])
    assert {rank["step"] for rank in results["nothing left"]} == {results["shards"][0]["step"]}


def test_a_batch_that_is_repeated_has_no_end(results) -> None:
    assert {rank["step"] for rank in results["overfit"]} == {20}


def test_the_last_checkpoint_and_weights_are_those_of_the_last_step(results, folder) -> None:
    step = results["shards"][0]["step"]
    assert (folder / "shards" / "checkpoints" / "latest").read_text().strip() == f"step_{step:08d}"
    assert (folder / "shards" / "weights" / "colour_net.safetensors").exists()
