"""What `python -m scripts.download_models` chooses, and its asking for consent; no server at all."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from scripts import download_models
from scripts.released.choice import chosen
from scripts.released.hub import weight_files
from scripts.released.table import released

ROOT = Path(__file__).parents[2]
CLIP_G, CLIP_L = "laion/CLIP-ViT-bigG-14-laion2B-39B-b160k", "openai/clip-vit-large-patch14"


def places(*purposes: str, small: bool = False, bf16: bool = False) -> set[str]:
    return {entry.place.removeprefix("models/") for entry in chosen(purposes, small, bf16)}


@pytest.mark.parametrize(
    ("experiment", "needs"),
    [
        ("train/stage_a", {"vgg16-397923af.pth"}),
        ("train/stage_b_700m", {"efficientnet_v2_s-dd5fe13b.pth", CLIP_G}),
        (
            "finetune/lora_stage_c_1b",
            {
                "effnet_encoder.safetensors",
                "stage_c_lite.safetensors",
                "previewer.safetensors",
                CLIP_G,
                CLIP_L,
            },
        ),
    ],
)
def test_an_experiment_needs_what_its_settings_name(experiment: str, needs: set[str]) -> None:
    assert places(experiment) == needs


def test_inference_comes_in_sizes_and_formats() -> None:
    always = {"stage_a.safetensors", "effnet_encoder.safetensors", "previewer.safetensors", CLIP_G, CLIP_L}
    assert places("inference") == always | {"stage_b.safetensors", "stage_c.safetensors"}
    small = {"stage_b_lite_bf16.safetensors", "stage_c_lite_bf16.safetensors"}
    assert places("inference", small=True, bf16=True) == always | small
    controls = {"canny.safetensors", "inpainting.safetensors", "super_resolution.safetensors"}
    assert places("inference", "controlnets") >= always | controls


def test_every_file_that_a_config_names_is_in_the_table() -> None:
    texts = [path.read_text(encoding="utf-8") for path in (ROOT / "configs").rglob("*.yaml")]
    words = {word.strip("{},;.") for text in texts for word in text.split()}
    assert {word for word in words if word.startswith("models/")} <= released().keys()
    for path in ("text_encoder/clip_g.yaml", "image_encoder/clip_l.yaml"):
        source = yaml.safe_load((ROOT / "configs/model" / path).read_text())["source"]
        assert released()[source].is_encoder


def test_sizes_are_those_of_the_parameters() -> None:
    """Of the released key lists: four bytes for each element, two in bf16."""
    manifests = ROOT / "tests/golden/manifests/_summary.json"
    summary = yaml.safe_load(manifests.read_text())
    for name, file in (
        ("stage_c_large", "stage_c"),
        ("stage_b_lite", "stage_b_lite"),
        ("previewer", "previewer"),
    ):
        entry = released()[f"models/{file}.safetensors"]
        elements = summary[name]["total_parameters"] + summary[name]["total_buffer_elements"]
        assert entry.size == 4 * elements
    for file in ("stage_b", "stage_c", "stage_b_lite", "stage_c_lite"):
        whole, half = (released()[f"models/{file}{ending}.safetensors"].size for ending in ("", "_bf16"))
        assert whole == 2 * half


def test_the_list_needs_no_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    (tmp_path / "models").mkdir()
    (tmp_path / "models/stage_a.safetensors").touch()
    assert download_models.main(["--list"]) == 0
    rows = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert rows.keys() - {rows.popitem()[0]} == released().keys()
    assert (
        " 73.6 MB computed   here  stable-cascade-nc-community, stabilityai/"
        in rows["models/stage_a.safetensors"]
    )
    assert download_models.main(["--for", "inference", "--small", "--bf16", "--dry-run"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "15.5 GB in all"


def test_an_encoder_in_parts_is_known_by_its_index() -> None:
    parts = ["model-00002-of-00002.safetensors", "model-00001-of-00002.safetensors"]
    there = [*parts, "model.safetensors.index.json", "pytorch_model.bin", "open_clip_model.safetensors"]
    assert weight_files(there) == ["model.safetensors.index.json", *sorted(parts)]
    assert weight_files(["pytorch_model.bin", "x"]) == ["pytorch_model.bin"]
    assert weight_files(["model.safetensors", "pytorch_model.bin"]) == ["model.safetensors"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing to fetch; name files, or --for; --list shows them"),
        (["stage_d.safetensors"], "stage_d.safetensors: not in the table; did you mean 'stage_"),
        (["--for", "finetune/lora"], "--for finetune/lora: neither a set (inference, controlnets) nor an"),
        (
            ["--accept-licence", "mine", "canny.safetensors"],
            "--accept-licence: found 'mine'; expected one of: ",
        ),
        (["canny.safetensors"], "the licence wants your consent: read https://huggingface.co/stabilityai/"),
        (["--lst"], "--lst: no such option; did you mean '--list'?"),
    ],
)
def test_mistakes_are_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    with open(os.devnull) as nowhere:
        monkeypatch.setattr(sys, "stdin", nowhere)
        try:
            status = download_models.main(arguments)
        except SystemExit as end:
            status = end.code
    assert status == 2
    errors = capsys.readouterr().err
    assert errors.startswith(f"error: {message}"), errors
    assert errors.count("\n") == 1


@pytest.mark.parametrize("answer", [b"n\n", b"\x04"], ids=["no", "Ctrl-D"])
def test_a_person_at_a_terminal_is_asked(tmp_path: Path, answer: bytes) -> None:
    """A real terminal: no is no, and nothing was fetched."""
    pty = pytest.importorskip("pty")  # not on Windows
    mine, theirs = pty.openpty()
    command = [sys.executable, "-m", "scripts.download_models", "stage_a.safetensors"]
    around = {**os.environ, "PYTHONPATH": str(ROOT), "HF_ENDPOINT": "http://127.0.0.1:9"}
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        env=around,
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    os.write(mine, answer)
    said, _ = process.communicate(timeout=900)
    assert process.returncode == 2
    assert "Do you accept it? [y/N]" in said
    assert "error: the licence was not accepted; nothing was fetched" in said
    assert list(tmp_path.iterdir()) == []
