"""The commands that convert, merge and extract, on small networks."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from modules.adapters.lora import LoRA
from modules.encoders import TextEncoder
from modules.weights import load_network, read_header, read_tensors, save_network
from modules.weights.lora_files import read_lora, write_lora
from scripts import convert_checkpoint, extract_lora, merge

CONFIG = {
    "c_in": 4,
    "c_out": 4,
    "c_r": 8,
    "c_cond": 16,
    "c_hidden": [16, 24],
    "nhead": [2, 3],
    "blocks": [[1, 1], [1, 1]],
    "c_clip_text": 16,
    "c_clip_text_pooled": 12,
    "c_clip_img": 12,
    "dropout": 0.0,
}
PATTERNS = {"*attention*": 3, "*channelwise*": 2}


def network(seed: int) -> Any:
    from modules import build

    torch.manual_seed(seed)
    built = build("stage_c", CONFIG)
    for parameter in built.parameters():
        parameter.data.add_(0.1 * torch.randn(parameter.shape))
    return built


def random_lora(base: Any, seed: int) -> LoRA:
    torch.manual_seed(seed)
    lora = LoRA.create(base, PATTERNS, alpha=2.0)
    for layer in lora.layers.values():
        for parameter in layer.parameters():
            parameter.data.normal_(std=0.2)
    return lora


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """base and other: networks; lora and second: changes of base."""
    base = network(0)
    paths = {name: tmp_path / f"{name}.safetensors" for name in ("base", "other", "lora", "second")}
    save_network(paths["base"], base, "stage_c", {"compression": 8.0})
    save_network(paths["other"], network(1), "stage_c", {})
    for seed, name in enumerate(("lora", "second")):
        write_lora(paths[name], random_lora(base, seed).to_state({"for": "stage_c"}))
    return paths


def state(path: Path) -> dict[str, Tensor]:
    return load_network(path, "stage_c").state_dict()


def assert_close(one: dict[str, Tensor], other: dict[str, Tensor], tolerance: float = 1e-5) -> None:
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(tensor, other[name], atol=tolerance, rtol=tolerance, msg=name)


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


def test_weights_of_merging_are_finite(files: dict[str, Path], tmp_path: Path, capsys: Any) -> None:
    with pytest.raises(SystemExit):
        merge.main([str(files["base"]), str(tmp_path / "x.safetensors"), "--lora", f"{files['lora']}:nan"])
    assert "expected a finite weight" in capsys.readouterr().err


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
    """Only where it is asked for: it is not there in a file of Stage C alone."""
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    encoder = TextEncoder(config={**sizes, "projection_dim": 12}, words=["red"], max_length=8)
    encoder.save(tmp_path / "models" / "text_encoder")
    shutil.copy(files["base"], tmp_path / "models" / "stage_c.safetensors")
    lora = LoRA.create(encoder.model, {"*q_proj": 2}, part="text_encoder")
    for layer in lora.layers.values():
        layer.lora_up.weight.data.normal_()
    both = read_lora(files["lora"])
    both.parts["text_encoder"].update(lora.to_state({}).parts["text_encoder"])
    write_lora(tmp_path / "both.safetensors", both)
    arguments = [
        str(tmp_path / "models"),
        str(tmp_path / "out"),
        "--lora",
        str(tmp_path / "both.safetensors"),
    ]
    assert merge.main([*arguments, "--part", "stage_c", "text_encoder"]) == 0
    merged = TextEncoder(source=str(tmp_path / "out"))
    lora.merge(encoder.model)
    assert torch.allclose(merged(["red"]).tokens, encoder(["red"]).tokens, atol=1e-5)
    capsys.readouterr()
    alone = [arguments[0], str(tmp_path / "c.safetensors"), *arguments[2:]]
    assert merge.main(alone) == 0
    assert (
        "left out: the 1 layers for text_encoder; --part text_encoder takes them" in capsys.readouterr().out
    )
    assert_close(
        state(tmp_path / "c.safetensors"), state(tmp_path / "out" / "stage_c.safetensors"), tolerance=0
    )


def test_extraction_says_what_it_leaves_out(files: dict[str, Path], tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "x.safetensors"
    assert extract_lora.main([str(files["base"]), str(files["other"]), str(out), "--rank", "2"]) == 0
    assert "left out: changes of" in capsys.readouterr().out
    assert extract_lora.main([str(files["base"]), str(files["base"]), str(tmp_path / "y.safetensors")]) == 2
    assert "do not differ" in capsys.readouterr().err


@pytest.mark.parametrize("layout", ["kohya", "peft", "diffusers", "onetrainer_legacy", "official"])
def test_loras_are_converted(layout: str, files: dict[str, Path], tmp_path: Path, capsys: Any) -> None:
    there, back = tmp_path / "new" / "there.safetensors", tmp_path / "back.safetensors"
    assert convert_checkpoint.main([str(files["lora"]), str(there), "--to", layout]) == 0
    assert "a LoRA for stage_c" in capsys.readouterr().out
    assert convert_checkpoint.main([str(there), str(back), "--to", "comfyui"]) == 0
    merged = {}
    for file in (files["lora"], back):
        target = load_network(files["base"], "stage_c").requires_grad_(False)
        LoRA.from_state(read_lora(file), target).merge(target)
        merged[file] = target.state_dict()
    assert_close(merged[files["lora"]], merged[back])


def test_conversion_there_and_back(files: dict[str, Path], tmp_path: Path, capsys: Any) -> None:
    for layout, name in (
        ("diffusers", "folder"),
        ("comfyui", "unet.safetensors"),
        ("official", "o.safetensors"),
    ):
        assert convert_checkpoint.main([str(files["base"]), str(tmp_path / name), "--to", layout]) == 0
        assert_close(state(tmp_path / name), state(files["base"]), tolerance=0)
    printed = capsys.readouterr().out
    assert "found:   stage_c (" in printed and "float32" in printed


def test_a_folder_of_runs_with_a_lora_among_them_is_of_networks(
    files: dict[str, Path], tmp_path: Path, capsys: Any
) -> None:
    runs = tmp_path / "runs"
    for run, name, file in (("stage_c", "stage_c", "base"), ("lora", "lora", "lora")):
        (runs / run / "weights").mkdir(parents=True)
        shutil.copyfile(files[file], runs / run / "weights" / f"{name}.safetensors")
    assert convert_checkpoint.main([str(runs), str(tmp_path / "prior"), "--to", "diffusers"]) == 0
    assert_close(state(tmp_path / "prior"), state(files["base"]), tolerance=0)
    for source in (runs / "lora", runs / "lora" / "weights"):
        shutil.rmtree(runs / "stage_c", ignore_errors=True)
        out = tmp_path / f"{source.name}.kohya.safetensors"
        assert convert_checkpoint.main([str(source), str(out), "--to", "kohya"]) == 0
    assert convert_checkpoint.main([str(runs), str(tmp_path / "k.safetensors"), "--to", "kohya"]) == 0
    assert read_lora(tmp_path / "k.safetensors").parts["unet"]


Arguments = Callable[[dict[str, Path]], list[str]]


@pytest.mark.parametrize(
    ("command", "arguments", "message"),
    [
        (convert_checkpoint, lambda f: ["nowhere", "x", "--to", "official"], "nowhere: no weights"),
        (convert_checkpoint, lambda f: [str(f["base"]), "x", "--to", "oficial"], "did you mean 'official'"),
        (
            convert_checkpoint,
            lambda f: [str(f["base"]), str(f["other"]), "--to", "official"],
            "exists already",
        ),
        (
            convert_checkpoint,
            lambda f: [str(f["base"]), "x", "--to", "official", "--part", "stage_d"],
            "part: found",
        ),
        (
            convert_checkpoint,
            lambda f: [str(f["lora"]), "x.safetensors", "--to", "koya"],
            "did you mean 'kohya'",
        ),
        (merge, lambda f: [str(f["base"]), "x.safetensors"], "nothing to merge"),
        (merge, lambda f: [str(f["base"]), "x.safetensors", "--lora", str(f["other"])], "not a LoRA"),
        (extract_lora, lambda f: [str(f["base"]), str(f["other"]), "folder"], "name of a .safetensors file"),
    ],
)
def test_mistakes_are_one_line(
    command: Any,
    arguments: Arguments,
    message: str,
    files: dict[str, Path],
    capsys: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = set(tmp_path.iterdir())
    monkeypatch.chdir(tmp_path)
    assert command.main(arguments(files)) == 2
    error = capsys.readouterr().err
    assert message in error and error.startswith("error: ") and error.count("\n") == 1
    assert set(tmp_path.iterdir()) == before


def test_dora_means_the_same_in_comfyui_when_the_base_is_named(
    files: dict[str, Path], tmp_path: Path
) -> None:
    base = load_network(files["base"], "stage_c")
    torch.manual_seed(5)
    lora = LoRA.create(base, PATTERNS, dora=True)
    for layer in lora.layers.values():
        layer.lora_up.weight.data.normal_(std=0.2)
    state = lora.to_state({"for": "stage_c"})
    write_lora(tmp_path / "dora.safetensors", state)
    arguments = [str(tmp_path / "dora.safetensors"), str(tmp_path / "theirs.safetensors"), "--to", "comfyui"]
    assert convert_checkpoint.main([*arguments, "--base", str(files["base"])]) == 0

    name, layer = next(iter(lora.layers.items()))
    weight = base.get_submodule(name).weight
    theirs = read_lora(tmp_path / "theirs.safetensors").parts["unet"][name]
    # What ComfyUI computes: magnitude / norm of the original weight, times the patched one.
    patched = weight + theirs.up @ theirs.down
    there = patched * theirs.dora_scale / weight.norm(dim=1, keepdim=True)
    torch.testing.assert_close(there, weight + layer.change(weight))
    # And here the file means that too.
    again = LoRA.from_state(read_lora(tmp_path / "theirs.safetensors"), base)
    torch.testing.assert_close(again.layers[name].change(weight), layer.change(weight))


def test_filters_tell_which_layers_an_official_lora_has(files: dict[str, Path], tmp_path: Path) -> None:
    base = load_network(files["base"], "stage_c")
    state = LoRA.create(base, {"*.attn.*": 2}, alpha=1.0).to_state({"for": "stage_c"})
    write_lora(tmp_path / "ours.safetensors", state, "official")
    # Without our header, which says the names, as the published code writes it.
    save_file(read_tensors(tmp_path / "ours.safetensors"), tmp_path / "official.safetensors")
    arguments = [str(tmp_path / "official.safetensors"), "--to", "comfyui", "--base", str(files["base"])]
    for words, status in (([".attn"], 0), (["channelwise"], 2)):
        out = tmp_path / f"{status}.safetensors"
        assert (
            convert_checkpoint.main([arguments[0], str(out), *arguments[1:], "--filters", *words]) == status
        )
    assert read_lora(tmp_path / "0.safetensors").parts["unet"].keys() == state.parts["unet"].keys()


def test_a_network_that_other_tools_cannot_sample_is_said_to_be_one(
    files: dict[str, Path], tmp_path: Path, capsys: Any
) -> None:
    base = load_network(files["base"], "stage_c")
    save_network(tmp_path / "v.safetensors", base, "stage_c", {"gdf": {"target": {"name": "VTarget"}}})
    for source, words in ((files["base"], False), (tmp_path / "v.safetensors", True)):
        out = tmp_path / f"{source.stem}_comfyui.safetensors"
        assert convert_checkpoint.main([str(source), str(out), "--to", "comfyui"]) == 0
        assert ("VTarget; diffusers' pipelines and ComfyUI sample" in capsys.readouterr().out) == words
