"""run.json counts what was left out and what each source gave, however a run ends, over ranks and starts."""

import io
import json
import os
import signal
import tarfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.integration.launching import run_ranks
from tests.integration.tally_worker import Counting, train
from train.config import config_from_plain
from train.loop import DivergedError, run

GLOBAL_BATCH, NUM_BROKEN = 12, 2
Settings = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Two sources of a shard of 16 pictures each; the first two of `photos` are broken."""
    folder = tmp_path_factory.mktemp("sources")
    rng = np.random.default_rng(0)
    for source in ("photos", "art"):
        (folder / source).mkdir()
        with tarfile.open(folder / source / "0.tar", "w") as tar:
            for number in range(16):
                picture = io.BytesIO()
                Image.fromarray(rng.integers(0, 255, (16, 16, 3), np.uint8)).save(picture, "PNG")
                is_broken = source == "photos" and number < NUM_BROKEN
                facts = json.dumps({"width_px": 16, "height_px": 16}).encode()
                content = picture.getvalue()
                content = content[: len(content) // 2] if is_broken else content
                for ending, data in {"png": content, "txt": b"text", "json": facts}.items():
                    info = tarfile.TarInfo(f"{number}.{ending}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))

    def make(run_folder: Path, num_steps: int, ranks: int = 1) -> dict[str, Any]:
        mode = {"mode": "ddp"} if ranks > 1 else {}
        run = {"num_steps": num_steps, "save_every": 100, "num_samples": 2, "max_nonfinite": 2}
        sources = [
            {"name": name, "shards": str(folder / name), "weight": weight}
            for name, weight in (("photos", 3.0), ("art", 1.0))
        ]
        shapes = {"image_size_px": 16, "multiple_px": 16, "aspect_ratios": ["1/1"]}
        reading = {"batch_size": GLOBAL_BATCH // ranks, "num_workers": 0, "split": "samples"}
        return {
            "name": "test",
            "run": {"dir": str(run_folder), "device": "cpu", **run},
            "recipe": {"name": "colour"},
            "data": {"sources": sources, **shapes, **reading},
            "parallel": mode,
        }

    return make


def last_start(run_folder: Path) -> dict[str, Any]:
    return json.loads((run_folder / "run.json").read_text())["starts"][-1]


def of_ranks(file: Path, settings: dict[str, Any], ranks: int, bad_steps: tuple[int, ...]) -> Counter[str]:
    """What all ranks together had in one start."""
    file.write_text(json.dumps({"settings": settings, "bad_steps": bad_steps}))
    run_ranks("tally_worker", file, size=ranks)
    return sum((Counter(json.loads(Path(f"{file}.{rank}").read_text())) for rank in range(ranks)), Counter())


class Failing(Counting):
    """Meets its fate after a step, which its own `taken` counts like all before."""

    fate: Callable[[], Any]

    def after_step(self, step: int) -> None:
        super().after_step(step)
        if step == 2:
            self.fate()


def ask_to_end() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def mistake() -> None:
    raise ValueError("a mistake")


def press_twice() -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("fate", "error"), [(ask_to_end, None), (mistake, ValueError), (press_twice, KeyboardInterrupt)]
)
def test_counts_stand_there_however_a_run_ends(settings, tmp_path, fate, error) -> None:
    recipe = Failing()
    recipe.fate = fate
    config = config_from_plain(settings(tmp_path, 20))
    if error is None:
        assert run(config, recipe).interrupted
    else:
        with pytest.raises(error):
            run(config, recipe)
    start = last_start(tmp_path)
    assert start["left_out"] == {"cut_picture": NUM_BROKEN} and "counts_of" not in start
    assert start["samples_of_sources"] == recipe.taken and recipe.taken.total() == 3 * GLOBAL_BATCH


def test_a_run_that_diverges_leaves_its_counts(settings, tmp_path) -> None:
    recipe = Counting(bad_steps=range(1, 9))
    with pytest.raises(DivergedError):
        run(config_from_plain(settings(tmp_path, 20)), recipe)
    start = last_start(tmp_path)
    assert start["error"].startswith("DivergedError") and start["left_out"] == {"cut_picture": NUM_BROKEN}
    assert start["samples_of_sources"] == recipe.taken


def test_a_data_set_without_sources_has_no_counts_of_them(plain_config, colour_recipe, tmp_path) -> None:
    run(config_from_plain(plain_config()), colour_recipe())
    assert "samples_of_sources" not in last_start(tmp_path / "run")


def test_counts_go_on_with_any_number_of_ranks(settings, tmp_path) -> None:
    """One, then three, then one; each start takes two steps."""
    taken: Counter[str] = Counter()
    for start, ranks in enumerate((1, 3, 1), 1):
        plain = settings(tmp_path / "run", 2 * start, ranks)
        if ranks == 1:
            taken += train(plain)
        else:
            taken += of_ranks(tmp_path / f"{start}.json", plain, ranks, (0,))
        assert last_start(tmp_path / "run")["samples_of_sources"] == taken
        assert last_start(tmp_path / "run")["left_out"] == {"cut_picture": NUM_BROKEN}
        assert taken.total() == 2 * start * GLOBAL_BATCH


def test_after_an_error_each_rank_speaks_for_itself(settings, tmp_path) -> None:
    """Nothing is asked of the others, who may be dead."""
    plain = settings(tmp_path / "run", 20, ranks=2)
    of_ranks(tmp_path / "two.json", plain, 2, (1, 9))
    start = last_start(tmp_path / "run")
    assert start["error"].startswith("DivergedError") and start["counts_of"] == "process 0 of 2"
    assert start["samples_of_sources"] == json.loads((tmp_path / "two.json.0").read_text())
