"""Weight files and checkpoints changed at random, read in a process of their own by every reader there is.

    python -m tests.hostile.fuzz_files 500

Nothing but ValueError and OSError may come of them, in one line; nothing of them is run; no process takes
more than LIMIT_BYTES or SECONDS.
"""

import json
import os
import random
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import save_file

from modules import build
from modules.weights import load_network, read_header
from modules.weights.conversion import gather
from modules.weights.lora_files import read_lora
from tests.hostile import fuzz_checkpoints
from tests.hostile.broken_files import archive, calling, doubling
from tests.hostile.changes import damage, with_change

LIMIT_BYTES, SECONDS = 2 * 2**30, 60
LAYER = "diffusion_model.down_blocks.0.2.attention.attn.to_q"
Read = Callable[[Path], Any]
READERS: tuple[Read, ...] = (lambda file: load_network(file, "previewer"), read_lora, gather, read_header)


def sound(folder: Path) -> list[Path]:
    """One file of each kind that there is."""
    network = build("previewer", {"c_hidden": 16})
    state = {key: value.contiguous() for key, value in network.state_dict().items()}
    header = {
        "network": "previewer",
        "config": network.config,
        "compression": 8.0,
        "random_scale": [0.5, 1.0],
    }
    save_file(state, folder / "ours.safetensors", {"kaskade": json.dumps(header)})
    save_file(state, folder / "theirs.safetensors")
    lora = {f"{LAYER}.lora_down.weight": torch.ones(2, 16), f"{LAYER}.lora_up.weight": torch.ones(16, 2)}
    lora |= {f"{LAYER}.alpha": torch.ones(()), "bundle_emb.me.clip_g": torch.ones(1, 16)}
    about = {"network": "lora", "for": "stage_c", "alphas": {f"unet/{LAYER[16:]}": 2.0}}
    save_file(lora, folder / "lora.safetensors", {"kaskade": json.dumps(about)})
    official = {"weights.0.lora_down": torch.ones(2, 16), "weights.0.lora_up": torch.ones(16, 2)}
    save_file(official, folder / "official.safetensors")
    torch.save({"state_dict": state}, folder / "new.pt")
    torch.save({"ema": state}, folder / "old.ckpt", _use_new_zipfile_serialization=False)
    index = {"weight_map": dict.fromkeys(state, "theirs.safetensors")}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return sorted(folder.iterdir())


def changed(rng: random.Random, file: Path, out: Path, canary: Path) -> Path:
    """A copy of a file with something wrong in it."""
    out, data = out / file.name, bytearray(file.read_bytes())
    if file.suffix == ".safetensors" and rng.random() < 0.7:
        length = int.from_bytes(data[:8], "little")
        head = json.loads(data[8 : 8 + length])
        if rng.random() < 0.5 and "kaskade" in head.get("__metadata__", {}):
            header = json.loads(head["__metadata__"]["kaskade"])
            head["__metadata__"]["kaskade"] = json.dumps(with_change(rng, header))
        else:
            head = with_change(rng, head)
        text = json.dumps(head).encode()
        data = bytearray(len(text).to_bytes(8, "little") + text + data[8 + length :])
    elif file.suffix == ".json":
        data = bytearray(json.dumps(with_change(rng, json.loads(data))).encode())
    elif file.suffix in (".pt", ".ckpt") and rng.random() < 0.4:
        if rng.random() < 0.3:
            out.write_bytes(calling(canary))
            return out
        return archive(out, rng.choice((calling(canary), doubling(40), b"\x80\x02" + b"]" * 10**6 + b".")))
    else:
        damage(rng, data)
    out.write_bytes(data)
    return out


def read_all(file: Path) -> str:
    """What comes of reading a file by every reader: "" or what should not have come."""
    for read in READERS:
        try:
            read(file)
        except (ValueError, OSError) as error:
            if "\n" in str(error):
                return f"several lines: {error}"
        except BaseException as error:
            return f"{type(error).__name__}: {error}"
    return ""


class Outcome(NamedTuple):
    """What came of reading one file; said: "" or what should not have come."""

    said: str
    seconds: float = 0.0
    grown_bytes: int = 0  # of the process's memory


def in_process(file: Path, read: Callable[[Path], str]) -> Outcome:
    """The same in a process of its own, which may take LIMIT_BYTES more than there is now, and SECONDS."""
    told, tell = os.pipe()
    child = os.fork()
    if not child:
        signal.alarm(SECONDS)
        quiet()
        began, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        said = read(file)
        grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
        if grown > LIMIT_BYTES:
            said += f" {grown} bytes"
        os.write(tell, json.dumps([said[:4000], time.monotonic() - began, grown]).encode())
        os._exit(0)
    os.close(tell)
    with os.fdopen(told, "rb") as pipe:
        found = pipe.read().decode()
    _, status = os.waitpid(child, 0)
    return Outcome(*json.loads(found)) if found and status == 0 else Outcome(f"ended with status {status}")


def quiet() -> None:
    """Say nothing any more."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)


def outcomes(seeds: range) -> Iterator[tuple[str, Outcome]]:
    """What comes of the files of these seeds, with their names; every fourth is a checkpoint."""
    with tempfile.TemporaryDirectory() as name:
        folder, out, canary = Path(name) / "sound", Path(name) / "changed", Path(name) / "canary"
        for each in (folder / "files", folder / "runs", out):
            each.mkdir(parents=True)
        files = sound(folder / "files")
        fuzz_checkpoints.sound(folder / "runs")
        for seed in seeds:
            rng = random.Random(seed)
            if seed % 4 == 3:
                file = fuzz_checkpoints.changed(rng, folder / "runs", out, canary)
                outcome = in_process(file, fuzz_checkpoints.read_all)
            else:
                for file in files:
                    (out / file.name).write_bytes(file.read_bytes())
                file = changed(rng, rng.choice(files), out, canary)
                outcome = in_process(file, read_all)
            if canary.exists():
                outcome = outcome._replace(said=f"{outcome.said} it was run")
                canary.unlink()
            yield f"{seed}: {file.name}", outcome


def run(seeds: range) -> list[str]:
    """The problems with files of these seeds."""
    return [f"{name}: {outcome.said}" for name, outcome in outcomes(seeds) if outcome.said]


def main(number: int) -> int:
    """Try so many; tell of problems at once, and of the extremes at the end."""
    num_problems, slowest, largest = 0, 0.0, 0
    for name, outcome in outcomes(range(number)):
        slowest, largest = max(slowest, outcome.seconds), max(largest, outcome.grown_bytes)
        if outcome.said:
            num_problems += 1
            print(f"{name}: {outcome.said}", flush=True)
    print(
        f"{number} broken weight files and checkpoints: {num_problems} problems; the slowest took"
        f" {slowest:.1f} s, the largest process grew by {largest / 2**20:.0f} MiB"
    )
    return int(num_problems > 0)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 500))
