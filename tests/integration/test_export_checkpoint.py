"""Plain weight files come out of a sharded checkpoint, without a GPU and with little memory."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from modules.weights import read_header, read_tensors
from scripts.export_checkpoint import main
from tests.integration.launching import environment
from train.checkpoints.shards import write_pieces
from train.config import config_from_plain
from train.loop import run
from train.parallel.pieces import Piece

MORE_BYTES = 12 << 20
WATCHED = """
import re, sys, threading
from pathlib import Path
from train.checkpoints.export import export
def used_bytes():
    return 1024 * int(re.search(r"RssAnon:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
def watch():
    while not done.wait(0.002):
        seen.append(used_bytes())
done, seen = threading.Event(), [used_bytes()]
watcher = threading.Thread(target=watch)
watcher.start()
export(Path(sys.argv[1]), {"net": {"network": "net"}}, 1, Path(sys.argv[2]))
done.set()
watcher.join()
print(len(seen), max(seen) - seen[0])
"""


@pytest.fixture
def finished(plain_config, colour_recipe, tmp_path: Path) -> Path:
    """A run that exported nothing."""
    run(config_from_plain(plain_config(run={"export": "never"})), colour_recipe())
    assert not (tmp_path / "run" / "weights").exists()
    return tmp_path / "run"


def test_the_command_writes_what_training_would_have(
    finished: Path, plain_config, colour_recipe, tmp_path, capsys
) -> None:
    run(config_from_plain(plain_config(run={"dir": str(tmp_path / "other")})), colour_recipe())
    assert main([str(finished)]) == 0
    names = ["colour_net.safetensors", "colour_net_ema.safetensors"]
    said = capsys.readouterr().out
    assert sorted(path.name for path in (finished / "weights").iterdir()) == names
    for path in (finished / "weights").iterdir():
        assert path.read_bytes() == (tmp_path / "other" / "weights" / path.name).read_bytes()
        assert str(path) in said
    header = read_header(finished / "weights" / names[0])
    assert header.pop("config") == {"width": 8, "dropout": 0.1}
    assert header == {"network": "colour_net", "colour": "mean", "step": 6}


def test_a_single_checkpoint_goes_where_it_is_asked_to(finished: Path, tmp_path: Path) -> None:
    words = [str(finished / "checkpoints" / "step_00000003"), "--out", str(tmp_path / "out")]
    command = [sys.executable, "-m", "scripts.export_checkpoint", *words]
    hidden = environment(CUDA_VISIBLE_DEVICES="")
    done = subprocess.run(command, env=hidden, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "2 files from" in done.stdout and done.stderr == ""
    assert read_header(tmp_path / "out" / "colour_net.safetensors")["step"] == 3
    main([str(finished)])
    folders = (tmp_path / "out", finished / "weights")
    third, sixth = (read_tensors(folder / "colour_net.safetensors") for folder in folders)
    assert not torch.equal(third["last.weight"], sixth["last.weight"])


def test_damage_is_told_and_the_checkpoint_before_it_taken(finished: Path, tmp_path: Path, capsys) -> None:
    last = finished / "checkpoints" / "step_00000006"
    (last / "rank_00000.safetensors").write_bytes(b"no")
    assert main([str(finished)]) == 0
    assert "taking the checkpoint before it" in capsys.readouterr().err
    assert read_header(finished / "weights" / "colour_net.safetensors")["step"] == 3
    assert main([str(last)]) == 2
    assert "damaged" in capsys.readouterr().err
    shutil.rmtree(finished / "checkpoints" / "step_00000003")
    assert main([str(finished)]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert "none of its 1 checkpoints is whole" in said and "damaged" in said and "before it" not in said
    assert main([str(tmp_path / "nothing")]) == 2
    assert capsys.readouterr().err.startswith(f"error: {tmp_path / 'nothing'}: neither a run's folder")


def test_memory_is_bounded_by_the_largest_tensor(tmp_path: Path) -> None:
    """40 tensors of 1 MB, half of each in one file: MORE_BYTES of memory are enough for all."""
    for rank in range(2):
        halves = {
            f"weights/net/{i}": Piece(torch.full((128, 1024), float(i)), (rank * 128, 0)) for i in range(40)
        }
        write_pieces(tmp_path / "step_00000001" / f"rank_0000{rank}.safetensors", halves)
    del halves

    command = [sys.executable, "-c", WATCHED, str(tmp_path / "step_00000001"), str(tmp_path)]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    samples, more_bytes = map(int, done.stdout.split())
    assert samples > 2 and more_bytes < MORE_BYTES
    written = read_tensors(tmp_path / "net.safetensors")
    assert len(written) == 40
    assert all(value.shape == (256, 1024) and (value == int(name)).all() for name, value in written.items())
