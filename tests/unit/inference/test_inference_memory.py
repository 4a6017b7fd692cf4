"""How much memory a network takes in a process of its own, by the ways it can be kept."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from modules import StageC
from modules.weights import save_network

ROOT = Path(__file__).parents[3]
WORKER = Path(__file__).with_name("memory_worker.py")
SLACK = 24  # MiB: buffers of the kernels, the heap's own


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float, float]:
    """A file of float32 weights, and MiB of all and of the largest block of them, in float32."""
    with torch.device("meta"):
        network = StageC(c_hidden=[768, 768], nhead=[8, 8], blocks=[[1, 3], [3, 1]], c_cond=768)
    network.to_empty(device="cpu")
    with torch.no_grad():
        for tensor in network.parameters():
            tensor.uniform_(-0.02, 0.02)
    path = tmp_path_factory.mktemp("weights") / "stage_c.safetensors"
    save_network(path, network, "stage_c", {})
    size = sum(t.nbytes for t in network.parameters()) / 2**20
    block = max(sum(t.nbytes for t in unit.parameters()) for unit in network.shard_units()) / 2**20
    return path, size, block


def measured(weights: Path, dtype: str, offload: str = "none", quantize: str = "none") -> tuple[float, float]:
    """MiB by which memory grew at most, and at the end."""
    # What is freed goes back to the system at once, so that it is not counted.
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "MALLOC_MMAP_THRESHOLD_": "65536"}
    command = [sys.executable, str(WORKER), str(weights), dtype, offload, quantize]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    peak, now = map(float, done.stdout.split())
    return peak, now


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's account of memory")
def test_memory_that_a_network_takes(weights: tuple[Path, float, float]) -> None:
    path, size, block = weights
    half = size / 2
    peak, now = measured(path, "bfloat16")
    assert half < now <= peak < half + block + SLACK  # once, in the format that is asked for
    peak, now = measured(path, "bfloat16", offload="block")
    assert peak < block + 2 * SLACK < half and now < SLACK
    peak, now = measured(path, "bfloat16", quantize="int8")
    assert now < half / 2 + SLACK and peak < half  # not in full before, either
