"""Weight files changed at random, read in a process of their own by every reader there is.

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
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from modules import build
from modules.weights import load_network, read_header
from modules.weights.conversion import gather
from modules.weights.lora_files import read_lora
from tests.hostile.broken_files import archive, calling, doubling

LIMIT_BYTES, SECONDS = 2 * 2**30, 60
LAYER = "diffusion_model.down_blocks.0.2.attention.attn.to_q"
VALUES = (
    None,
    True,
    -1,
    0,
    2**31,
    2**63,
    10**30,
    1.5,
    1e308,
    "",
    "x",
    "../x",
    [],
    [[]],
    {},
    {"a": {}},
    "\0",
    "F8_E4M3",
)
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


def damage(rng: random.Random, data: bytearray) -> None:
    """Bytes flipped near the start or anywhere, cut off, doubled."""
    for _ in range(rng.randrange(1, 20)):
        if not data:
            return
        at = rng.randrange(min(len(data), rng.choice((16, 400, len(data)))))
        kind = rng.randrange(6)
        if kind < 4:
            data[at] = rng.randrange(256)
        elif kind == 4:
            del data[at:]
        else:
            data[at:at] = data[at : at + rng.randrange(1, 100)]


def with_change(rng: random.Random, plain: Any) -> Any:
    """Plain data with one value, somewhere in it, replaced, lost or put under another name."""
    if isinstance(plain, dict) and plain and rng.random() < 0.9:
        key = rng.choice(sorted(plain))
        if rng.random() < 0.1:
            return {name: value for name, value in plain.items() if name != key}
        if rng.random() < 0.1:
            return {
                (str(rng.choice(VALUES)) if name == key else name): value for name, value in plain.items()
            }
        return plain | {key: with_change(rng, plain[key])}
    if isinstance(plain, list) and plain and rng.random() < 0.8:
        at = rng.randrange(len(plain))
        return [with_change(rng, item) if n == at else item for n, item in enumerate(plain)]
    return rng.choice(VALUES)


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


def in_process(file: Path) -> str:
    """The same in a process of its own, which may take LIMIT_BYTES more than there is now, and SECONDS."""
    told, tell = os.pipe()
    child = os.fork()
    if not child:
        signal.alarm(SECONDS)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        found = read_all(file)
        grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
        os.write(tell, (found or (f"{grown} bytes" if grown > LIMIT_BYTES else "fine"))[:4000].encode())
        os._exit(0)
    os.close(tell)
    with os.fdopen(told, "rb") as pipe:
        said = pipe.read().decode(errors="replace")
    _, status = os.waitpid(child, 0)
    return "" if said == "fine" and status == 0 else said or f"ended with status {status}"


def run(seeds: range) -> list[str]:
    """The problems with files of these seeds."""
    problems: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        folder, out, canary = Path(name) / "sound", Path(name) / "changed", Path(name) / "canary"
        folder.mkdir()
        out.mkdir()
        files = sound(folder)
        for seed in seeds:
            for file in files:
                (out / file.name).write_bytes(file.read_bytes())
            rng = random.Random(seed)
            file = changed(rng, rng.choice(files), out, canary)
            if said := in_process(file):
                problems.append(f"{seed}: {file.name}: {said}")
                print(problems[-1], flush=True)
            if canary.exists():
                problems.append(f"{seed}: {file.name}: it was run")
                canary.unlink()
    return problems


if __name__ == "__main__":
    number = int(sys.argv[1]) if len(sys.argv) > 1 else 500
    found = run(range(number))
    print(f"{number} broken weight files, {len(found)} problems")
    sys.exit(bool(found))
