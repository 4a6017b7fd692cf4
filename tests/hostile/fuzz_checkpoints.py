"""Folders of checkpoints changed at random, with a manifest that says they are whole, and runs that go on."""

import json
import os
import random
import shutil
from pathlib import Path
from typing import Any

from modules.schema import one_line
from scripts import export_checkpoint
from tests.hostile.broken_data import picture, sample, tar_bytes
from tests.hostile.changes import damage, with_change
from tests.integration.recipe_cases import make_config
from train.checkpoints.files import facts_of
from train.config import Config
from train.loop import DivergedError, run

RECIPES = ("stage_a", "stage_c")
CHECKPOINT = "run/checkpoints/step_00000002"
NAMES = ("../x", "/etc/passwd", "a/b", ".", "..", "", "x\n", "state.json/..", "rank_00001.safetensors", "\0")
POINTERS = ("step_00000009", "../../run/checkpoints/step_00000002", "/etc", "x", "", "step_" + "9" * 5000)
POINTERS += ("step_00000002\n\n", "step_-1", "step_٣", "\0", "step_00000002/../step_00000002")
WEIGHTY = ("state.json", "rank_00000.json", "rank_00000.safetensors")


def sound(folder: Path) -> None:
    """A run of two steps of each recipe."""
    for recipe in RECIPES:
        (folder / recipe / "data").mkdir(parents=True)
        members = [each for n in range(6) for each in sample(f"{n}", picture(n, (32, 32)))]
        (folder / recipe / "data" / "a.tar").write_bytes(tar_bytes(members))
        run(config(folder / recipe, 2))


def config(folder: Path, num_steps: int) -> Config:
    data = {"shards": str(folder / "data"), "batch_size": 2, "num_workers": 0, "split": "samples"}
    data["cache_dir"] = str(folder / "cache")
    trained = {"dir": str(folder / "run"), "num_steps": num_steps, "save_every": 2, "num_samples": 1}
    trained |= {"device": "cpu", "log_every": 10, "sample_every": 0}
    return make_config(folder.name, run=trained, data=data)


def changed(rng: random.Random, folder: Path, out: Path, canary: Path) -> Path:
    """A copy of one of the runs whose checkpoint has something wrong in it, though not its checksums."""
    recipe = rng.choice(RECIPES)
    shutil.rmtree(out / recipe, ignore_errors=True)
    shutil.copytree(folder / recipe, out / recipe)
    for file in (out / recipe / "run").rglob("*.json"):  # which lead back to where it was made
        file.write_text(file.read_text().replace(str(folder), str(out)))
    checkpoint = out / recipe / CHECKPOINT
    kind = rng.randrange(10)
    if kind == 0:
        (checkpoint.parent / "latest").write_text(rng.choice(POINTERS))
    elif kind > 1:
        change_file(rng, checkpoint / rng.choice(WEIGHTY), canary)
    files = {path.name: facts_of(path) for path in checkpoint.iterdir() if path.name != "manifest.json"}
    if kind == 1:
        files = change_names(rng, files, checkpoint)
    (checkpoint / "manifest.json").write_text(json.dumps(files))
    return out / recipe


def change_names(rng: random.Random, files: dict[str, Any], checkpoint: Path) -> dict[str, Any]:
    """Another manifest; or a link, or something that is no file, in the place of one."""
    name = rng.choice(sorted(files))
    kind = rng.randrange(4)
    if kind == 0:
        return with_change(rng, files)
    if kind == 1:
        return {rng.choice(NAMES) if each == name else each: facts for each, facts in files.items()}
    (checkpoint / name).unlink()
    if kind == 2:
        os.mkfifo(checkpoint / name)
    else:
        (checkpoint / name).symlink_to(
            rng.choice(("/dev/zero", "/etc/passwd", checkpoint, checkpoint / name))
        )
    return files


def change_file(rng: random.Random, file: Path, canary: Path) -> None:
    """Something wrong in one of the files, which stays readable as far as that goes."""
    data = bytearray(file.read_bytes())
    kind = rng.randrange(10)
    if kind == 0:
        damage(rng, data)
    elif file.suffix == ".json":
        plain = json.loads(data)
        if file.name != "state.json" and kind < 5:
            redirect(rng, plain, canary)
        else:
            plain = with_change(rng, plain)
        data = bytearray(json.dumps(plain).encode())
    else:
        length = int.from_bytes(data[:8], "little")
        text = json.dumps(with_change_of_head(rng, json.loads(data[8 : 8 + length]))).encode()
        data = bytearray(len(text).to_bytes(8, "little") + text + data[8 + length :])
    file.write_bytes(data)


def redirect(rng: random.Random, plain: dict[str, Any], canary: Path) -> None:
    """Put a sample into the position that lies in a file, or comes of a command, of the stranger's choice."""
    shard = rng.choice((f"pipe:touch {canary}", "/etc/passwd", "http://127.0.0.1:9/a.tar", "/dev/zero"))
    sides = rng.choice(([32, 32], [10**6, 10**6], [0, 0], [32, 32, 32]))
    reference = [shard, "0", rng.choice((0, -1, 2**62)), rng.choice((100, 10**12)), sides, [32, 32]]
    reference += ["a caption", 0, ""]
    lane = plain["data"]["lanes"][0]
    for _ in range(4):
        lane["snapshot"]["waiting"].insert(0, reference)


def with_change_of_head(rng: random.Random, head: dict[str, Any]) -> dict[str, Any]:
    """The description of the tensors with a lie: about their places in the whole, or about themselves."""
    about = head["__metadata__"]
    if rng.random() < 0.5:
        places = with_change(rng, json.loads(about["DCP_SHARDING_INFO"]))
        return {**head, "__metadata__": {**about, "DCP_SHARDING_INFO": json.dumps(places)}}
    if rng.random() < 0.5:
        return with_change(rng, head)
    name = rng.choice(sorted(head.keys() - {"__metadata__"}))
    first, last = head[name]["data_offsets"]
    lies = [
        {"shape": [0, 2**62], "data_offsets": [first, first]},
        {"shape": [last - first], "dtype": "U8"},
        {"shape": [1, *head[name]["shape"]]},
        {"shape": head[name]["shape"][::-1]},
        {"dtype": rng.choice(("I32", "U32", "F16", "BF16", "F8_E4M3", "C64"))},
    ]
    return {**head, name: {**head[name], **rng.choice(lies)}}


def read_all(folder: Path) -> str:
    """What comes of exporting the checkpoint and going on with the run: "" or what should not have come."""
    checkpoints = sorted((folder / "run" / "checkpoints").glob("step_*"))
    export_checkpoint.main([str(checkpoints[0]), "--out", str(folder / "out" / "weights")])
    if beside := {path.name for path in (folder / "out").glob("*")} - {"weights"}:
        return f"exported beside the folder for it: {beside}"
    try:
        run(config(folder, 4))
    except (ValueError, OSError, DivergedError) as error:
        if str(error) != one_line(error):
            return f"several lines: {error!r}"
    except BaseException as error:
        return f"{type(error).__name__}: {error}"
    return ""
