"""`python -m inference` as a user runs it: real processes, a folder of runs, files on the disk."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from inference import open_picture
from inference.config import Config
from inference.recreate import recreate
from tests.adapter_files import write_controlnets, write_ip_adapter, write_lcm, write_loras

ROOT = Path(__file__).parents[2]
FAST = ["stage_c.steps=2", "stage_b.steps=2"]


def inference(*arguments: str, folder: Path, threads: int = 1) -> subprocess.CompletedProcess[str]:
    """Run the command in a folder of its own."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": str(threads)}
    command = [sys.executable, "-m", "inference", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


def test_pictures_are_written_and_made_again_by_other_processes(tiny_runs: Path, tmp_path: Path) -> None:
    run = f"run={tiny_runs}"
    done = inference(
        "prompt=['a red circle','blue, square']",
        run,
        "seed=5",
        "num_images=2",
        "sheet=true",
        *FAST,
        folder=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "outputs" / "pictures"
    names = {
        "a-red-circle_5.png",
        "a-red-circle_6.png",
        "blue-square_5.png",
        "blue-square_6.png",
        "sheet.png",
    }
    assert {path.name for path in folder.iterdir()} == names
    assert {line.rpartition("/")[2] for line in done.stdout.split()} == names

    again = inference(f"recreate={folder / 'blue-square_5.png'}", "output=again", folder=tmp_path)
    assert again.returncode == 0, again.stderr
    assert again.stdout.strip() == "again/blue-square_5.png: the same pixels"
    first, second = (
        open_picture(folder / "blue-square_5.png"),
        open_picture(tmp_path / "again/blue-square_5.png"),
    )
    assert np.array_equal(np.asarray(first.image), np.asarray(second.image))
    assert first.facts == second.facts


def test_an_image_is_reconstructed(tiny_runs: Path, tmp_path: Path) -> None:
    Image.effect_noise((40, 24), 90).save(tmp_path / "photo.jpg")
    done = inference(
        "task=reconstruct", "image=photo.jpg", f"run={tiny_runs}", "seed=1", *FAST, folder=tmp_path
    )
    assert done.returncode == 0, done.stderr
    with Image.open(tmp_path / "outputs/pictures/picture_1.png") as image:
        assert image.size == (40, 24)


def test_a_mistake_ends_with_one_line_and_nothing_written(tiny_runs: Path, tmp_path: Path) -> None:
    done = inference("prompt=x", f"run={tiny_runs}", "stage_c.sampler=plms", folder=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: stage_c.sampler: found ")
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_sweeps_over_settings(tiny_runs: Path, tmp_path: Path) -> None:
    sweep = ["--multirun", "stage_c.guidance=1,2", "prompt=a", "seed=1", "task=preview", "stage_c.steps=1"]
    done = inference(*sweep, f"run={tiny_runs}", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    pictures = [open_picture(path) for path in sorted(tmp_path.glob("outputs/pictures/*.png"))]
    assert [picture.facts["stage_c"]["guidance"] for picture in pictures] == [1, 2]
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.yaml")] == [
        "outputs/pictures/multirun.yaml"
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["outputs"]


def test_adapters_are_named_on_the_command_line(
    tiny_runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An inpainting in the LCM's four steps with a LoRA, two ControlNets and an image prompt; and again."""
    write_loras(tiny_runs, tmp_path)
    write_controlnets(tmp_path)
    write_ip_adapter(tmp_path, tiny_runs / "image_encoder")
    write_lcm(tiny_runs, tmp_path)
    Image.effect_noise((40, 24), 90).save(tmp_path / "photo.png")
    Image.linear_gradient("L").resize((40, 24)).save(tmp_path / "mask.png")
    done = inference(
        "task=inpaint",
        "image=photo.png",
        "mask=mask.png",
        "prompt=a [star], red",
        f"run={tiny_runs}",
        "weights.stage_c=lcm",
        "loras=[{weights: lora_c, weight: 0.8}, lora_b]",
        "controls=[inpainting, {weights: canny, image: photo.png, scale: 0.5, end: 0.7}]",
        "image_prompt.weights=ip_adapter",
        "image_prompt.images=[photo.png]",
        "seed=[1,2]",
        "stage_b.steps=2",
        folder=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    made = tmp_path / "outputs" / "pictures" / "a-star-red_2.png"
    facts = open_picture(made).facts
    assert facts["loras"] == [
        {"weights": "lora_c", "weight": 0.8, "tokens": {}},
        {"weights": "lora_b", "weight": 1.0, "tokens": {}},
    ]
    assert facts["controls"][1]["end"] == 0.7
    assert (facts["stage_c"]["steps"], facts["batch"]) == (4, {"rows": 2, "row": 1})
    assert set(facts["pictures_sha256"]) == {"image", "mask", "controls[1].image", "image_prompt.images[0]"}
    monkeypatch.chdir(tmp_path)
    assert recreate(Config(recreate=str(made)))[1] == "the same pixels"
