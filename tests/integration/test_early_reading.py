"""Data workers read while the networks are built; whatever goes wrong then is told once, and ends them."""

import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.integration.conftest import ColourRecipe
from tests.integration.tiny_experiment import Call
from tests.unit.dataset_tools.stream_cases import soon
from train.config import config_from_plain
from train.loop import run

needs_proc = pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for the workers in /proc")


def workers() -> list[int]:
    return [child.pid for child in multiprocessing.active_children() if child.pid]


def has_open_shard(pid: int) -> bool:
    """Whether a process is reading a shard."""
    links = Path(f"/proc/{pid}/fd").iterdir()
    return any(str(link.readlink()).endswith(".tar") for link in links if link.is_symlink())


class Watching(ColourRecipe):
    """A recipe that looks, and may act, while its networks are built."""

    def __init__(self, then: Any = None) -> None:
        super().__init__()
        self.then, self.at_work = then, False

    def build(self, device: torch.device) -> None:
        self.at_work = soon(lambda: any(map(has_open_shard, workers())))
        super().build(device)
        if self.then:
            self.then()


@needs_proc
def test_data_are_read_while_networks_are_built(plain_config: Any) -> None:
    """At the first start, and where a checkpoint says where to go on."""
    for num_steps in (3, 6):
        recipe = Watching()
        config = config_from_plain(plain_config(run={"num_steps": num_steps}, data={"num_workers": 2}))
        assert run(config, recipe).step == num_steps
        assert recipe.at_work and not workers()


@needs_proc
def test_no_worker_is_left_when_the_networks_cannot_be_built(plain_config: Any) -> None:
    def fail() -> None:
        raise ValueError("no such weights")

    with pytest.raises(ValueError, match=r"^no such weights$"):
        run(config_from_plain(plain_config(data={"num_workers": 2})), Watching(fail))
    assert not workers()


def test_a_mistake_found_late_is_one_line_and_leaves_no_worker(call: Call, capsys: Any) -> None:
    arguments = ["model.semantic_compressor.weights=nowhere.safetensors", "data.num_workers=1"]
    assert call("experiment=tiny", *arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and "nowhere.safetensors" in error
    assert not workers()


@needs_proc
def test_a_worker_that_dies_meanwhile_is_told_of_once_when_its_batch_is_wanted(plain_config: Any) -> None:
    """Those that were made before it died are learned from."""
    recipe = Watching(lambda: [os.kill(pid, signal.SIGKILL) for pid in workers()])
    config = config_from_plain(plain_config(run={"num_steps": 100}, data={"num_workers": 2}))
    with pytest.raises(OSError, match=r"^data worker [12] of 2 was killed by signal 9"):
        run(config, recipe)
    assert not workers()
