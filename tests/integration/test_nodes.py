"""Two machines, which are network namespaces of this one with process numbers and names of their own."""

import csv
import os
import shlex
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.integration.launching import LONG_S, TORCHRUN, started
from tests.integration.recipe_cases import RECIPES
from train.config import config_from_plain
from train.loop import run

NODES = ("a", "b")
STEPS = 5
SILENT_S = 10.0  # more than a process of a busy machine ever has to wait for its turn
ISOLATED = ["unshare", "--mount", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc"]


def settings(shards: Path, folder: Path, batch_size: int, num_steps: int) -> dict[str, Any]:
    return {
        "name": "test",
        "run": {"dir": str(folder), "num_steps": num_steps, "log_every": 1, "save_every": 10**6}
        | {"num_samples": 1, "device": "cpu", "precision": "fp32"},
        "data": {"shards": str(shards), "image_size_px": 32, "aspect_ratios": ["1/1"], "num_workers": 0}
        | {"batch_size": batch_size, "split": "samples"},
        "parallel": {"mode": "ddp", "dead_after_s": SILENT_S},
        **RECIPES["previewer"],
    }


@contextmanager
def cable() -> Iterator[dict[str, str]]:
    """Two network namespaces with a cable between them; their names by node."""
    if not (shutil.which("ip") and shutil.which("unshare")):
        pytest.skip("network namespaces need the programs ip and unshare")
    if subprocess.run([*ISOLATED, "true"], capture_output=True).returncode:
        pytest.skip("process numbers and mounts of their own need the rights of root")
    spaces = {node: f"kaskade{os.getpid()}{node}" for node in NODES}
    with ExitStack() as stack:
        for space in spaces.values():
            if subprocess.run(["ip", "netns", "add", space], capture_output=True).returncode:
                pytest.skip("network namespaces need the rights of root")
            stack.callback(subprocess.run, ["ip", "netns", "del", space], check=True)
        ends = "link add eth7 netns {a} type veth peer name eth8 netns {b}".format(**spaces)
        for command in (
            ends,
            f"-n {spaces['a']} addr add 10.77.0.1/24 dev eth7",
            f"-n {spaces['b']} addr add 10.77.0.2/24 dev eth8",
            *(f"-n {spaces[node]} link set {name} up" for node in NODES for name in ("lo", link(node))),
        ):
            subprocess.run(["ip", *command.split()], check=True)
        yield spaces


def link(node: str) -> str:
    return {"a": "eth7", "b": "eth8"}[node]


@contextmanager
def node_of(node: str, space: str, folder: Path, command: list[str]) -> Iterator[subprocess.Popen]:
    """Run a command on a node: with its network, process numbers, host name and list of hosts."""
    (folder / "hosts").write_text("127.0.0.1 localhost\n10.77.0.1 node-a\n10.77.0.2 node-b\n")
    inside = f"mount --bind {folder / 'hosts'} /etc/hosts; hostname node-{node}; exec {shlex.join(command)}"
    whole = ["ip", "netns", "exec", space, *ISOLATED, "sh", "-ec", inside]
    with (folder / f"{node}.txt").open("w") as words, started(whole, stdout=words, stderr=words) as process:
        yield process


def losses(folder: Path) -> list[float]:
    """Of the steps that are reported so far."""
    path = folder / "metrics.csv"
    if not path.exists():
        return []
    with path.open() as file:
        return [float(row["loss"]) for row in csv.DictReader(file) if row.get("samples_per_second")]


def test_two_nodes_train_as_one_and_the_loss_of_one_ends_the_other(shards: Path, tmp_path: Path) -> None:
    run(config_from_plain(settings(shards, tmp_path / "one", 4, STEPS)))
    plain = settings(shards, tmp_path / "two", 2, 10**6)
    (tmp_path / "configs" / "experiment").mkdir(parents=True)
    (tmp_path / "configs" / "experiment" / "small.yaml").write_text(
        "# @package _global_\n" + yaml.safe_dump(plain)
    )
    train = ["-m", "train", f"--config-dir={tmp_path / 'configs'}", "experiment=small"]
    meeting = ["--nnodes=2", "--nproc-per-node=1", "--rdzv-backend=c10d", "--rdzv-endpoint=node-a:29500"]
    command = [*TORCHRUN, *meeting, *train]
    with cable() as spaces, ExitStack() as running:
        nodes = {
            node: running.enter_context(node_of(node, spaces[node], tmp_path, command)) for node in NODES
        }
        end = time.monotonic() + LONG_S
        while len(losses(tmp_path / "two")) < STEPS:
            said = "".join((tmp_path / f"{node}.txt").read_text() for node in NODES)
            assert all(node.poll() is None for node in nodes.values()) and time.monotonic() < end, said
            time.sleep(0.1)
        # No farewell reaches the other machine, as when the power fails.
        subprocess.run(["ip", "-n", spaces["b"], "link", "set", link("b"), "down"], check=True)
        nodes["b"].kill()
        status = nodes["a"].wait(LONG_S)
        nodes["b"].wait()
    found, expected = losses(tmp_path / "two")[:STEPS], losses(tmp_path / "one")
    assert found == pytest.approx(expected, rel=2e-3, abs=1e-5)
    told = [line for line in (tmp_path / "a.txt").read_text().splitlines() if line.startswith("error:")]
    assert status != 0 and len(told) == 1
    assert f"rank 1 on node-b gave no sign of life for {SILENT_S:g} s" in told[0]
