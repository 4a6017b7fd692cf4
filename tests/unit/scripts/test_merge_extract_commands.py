"""The commands that merge and extract, on small networks."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from modules.adapters.lora import LoRA
from modules.encoders import TextEncoder
from modules.weights import load_network, read_header, read_tensors
from modules.weights.lora_files import read_lora, write_lora
from scripts import extract_lora, merge
from tests.unit.scripts.weight_cases import assert_close, state


def test_loras_are_merged_with_their_weights(files: dict[str, Path], tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "merged.safetensors"
    assert (
        merge.main([str(files["base"]), str(out), "--lora", f"{files['lora']}:0.5", str(files["second"])])
        == 0
    )
    expected = load_network(files["base"], "stage_c").requires_grad_(False)
    for name, weight in (("lora", 0.5), ("second", 1.0)):
        LoRA.from_state(read_lora(files[name]), expected).merge(expected, weight)
    assert_close(state(out), expected.state_dict())
    header = read_header(out)
    assert [(entry["lora"], entry["weight"]) for entry in header["merged"]] == [
        ("lora.safetensors", 0.5),
        ("second.safetensors", 1.0),
    ]
    assert header["compression"] == 8.0
    assert "written:" in capsys.readouterr().out


def test_an_official_lora_without_names_is_merged(files: dict[str, Path], tmp_path: Path) -> None:
    """Its layers have numbers only; the network that it is merged into names them."""
    base = load_network(files["base"], "stage_c").requires_grad_(False)
    lora = LoRA.create(base, {"*.attn.*": 2}, alpha=2.0)
    for layer in lora.layers.values():
        layer.lora_up.weight.data.normal_(std=0.2)
    write_lora(tmp_path / "ours.safetensors", lora.to_state({"for": "stage_c"}), "official")
    save_file(read_tensors(tmp_path / "ours.safetensors"), tmp_path / "official.safetensors")
    out = tmp_path / "merged.safetensors"
    assert merge.main([str(files["base"]), str(out), "--lora", str(tmp_path / "official.safetensors")]) == 0
    lora.merge(base)
    assert_close(state(out), base.state_dict())


def test_checkpoints_are_merged_by_weight(files: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "between.safetensors"
    assert merge.main([str(files["base"]), str(out), "--other", f"{files['other']}:0.25"]) == 0
    first, second = state(files["base"]), state(files["other"])
    assert_close(state(out), {name: 0.75 * first[name] + 0.25 * second[name] for name in first})


def test_what_was_merged_can_be_extracted(files: dict[str, Path], tmp_path: Path, capsys: Any) -> None:
    """An extraction of the LoRA's rank holds all of the change; merged again it gives the same network."""
    tuned, change, again = (tmp_path / f"{name}.safetensors" for name in ("tuned", "change", "again"))
    assert merge.main([str(files["base"]), str(tuned), "--lora", str(files["lora"])]) == 0
    ranks = ["--rank", "0", "--layers", "*=3"]
    assert extract_lora.main([str(files["base"]), str(tuned), str(change), *ranks]) == 0
    table = [line.split() for line in capsys.readouterr().out.splitlines() if line.strip().endswith("%")]
    assert [int(rank) for rank, _ in table] == [1, 2, 3]
    shares = [float(share.rstrip("%")) for _, share in table]
    assert shares == sorted(shares) and shares[0] < 90 and shares[-1] == pytest.approx(100, abs=0.01)
    assert read_lora(change).facts["extracted"]["from"] == str(tuned)
    assert merge.main([str(files["base"]), str(again), "--lora", str(change)]) == 0
    assert_close(state(again), state(tuned), tolerance=1e-4)


def test_layers_of_the_text_encoder_are_merged_too(
    files: dict[str, Path], tmp_path: Path, capsys: Any
) -> None:
    """Those of every LoRA; only where it is asked for: it is not there in a file of Stage C alone."""
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    encoder = TextEncoder(config={**sizes, "projection_dim": 12}, words=["red"], max_length=8)
    encoder.save(tmp_path / "models" / "text_encoder")
    shutil.copy(files["base"], tmp_path / "models" / "stage_c.safetensors")
    loras = {name: LoRA.create(encoder.model, {"*q_proj": 2}, part="text_encoder") for name in "ab"}
    for name, lora in loras.items():
        for layer in lora.layers.values():
            layer.lora_up.weight.data.normal_()
        both = read_lora(files["lora"])
        both.parts["text_encoder"].update(lora.to_state({}).parts["text_encoder"])
        write_lora(tmp_path / f"{name}.safetensors", both)
    given = ["--lora", *(str(tmp_path / f"{name}.safetensors") for name in loras)]
    models, out = str(tmp_path / "models"), tmp_path / "out"
    assert merge.main([models, str(out), *given, "--part", "stage_c", "text_encoder"]) == 0
    merged = TextEncoder(source=str(out))
    for lora in loras.values():
        lora.merge(encoder.model)
    assert torch.allclose(merged(["red"]).tokens, encoder(["red"]).tokens, atol=1e-5)
    capsys.readouterr()
    assert merge.main([models, str(tmp_path / "c.safetensors"), *given]) == 0
    assert (
        "left out: the 1 layers for text_encoder; --part text_encoder takes them" in capsys.readouterr().out
    )
    assert_close(state(tmp_path / "c.safetensors"), state(out / "stage_c.safetensors"), tolerance=0)


def test_the_plain_weights_of_every_run_are_merged_where_they_are_asked_for(
    files: dict[str, Path], tmp_path: Path
) -> None:
    for name in ("base", "other", "lora"):
        weights = tmp_path / name / "weights"
        weights.mkdir(parents=True)
        kind = "lora" if name == "lora" else "stage_c"
        shutil.copy(files[name], weights / f"{kind}.safetensors")
        averaged = files["second"] if name == "lora" else files["other" if name == "base" else "base"]
        shutil.copy(averaged, weights / f"{kind}_ema.safetensors")
    runs, out = (
        {name: str(tmp_path / name) for name in ("base", "other", "lora")},
        tmp_path / "plain.safetensors",
    )
    given = ["--other", f"{runs['other']}:0.25", "--lora", runs["lora"]]
    assert merge.main([runs["base"], str(out), *given, "--no-ema"]) == 0
    files_out = tmp_path / "expected.safetensors"
    given = ["--other", f"{files['other']}:0.25", "--lora", str(files["lora"])]
    assert merge.main([str(files["base"]), str(files_out), *given]) == 0
    assert_close(state(out), state(files_out), tolerance=0)
    prints = [[entry["fingerprint"] for entry in read_header(file)["merged"]] for file in (out, files_out)]
    assert prints[0] == prints[1]


def test_extraction_says_what_it_leaves_out(files: dict[str, Path], tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "x.safetensors"
    assert extract_lora.main([str(files["base"]), str(files["other"]), str(out), "--rank", "2"]) == 0
    assert "left out: changes of" in capsys.readouterr().out
    assert extract_lora.main([str(files["base"]), str(files["base"]), str(tmp_path / "y.safetensors")]) == 2
    assert "do not differ" in capsys.readouterr().err
