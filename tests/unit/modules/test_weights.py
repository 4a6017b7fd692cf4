import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import modules
from modules.weights import find_weights, load_network, read_header, read_tensors, save_network

CONFIG = {"c_in": 4, "c_hidden": 16}


@pytest.fixture
def previewer() -> modules.Network:
    return modules.build("previewer", CONFIG)


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def same_weights(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    theirs = other.state_dict()
    return all(torch.equal(tensor, theirs[key]) for key, tensor in one.state_dict().items())


def test_saved_network_is_the_same(previewer: modules.Network, tmp_path: Path) -> None:
    file = tmp_path / "previewer.safetensors"
    save_network(file, previewer.to(memory_format=torch.channels_last), "previewer", {"note": [1, 2]})
    assert read_header(file) == {"network": "previewer", "config": previewer.config, "note": [1, 2]}
    loaded = load_network(file, "previewer")
    assert same_weights(loaded, previewer)
    assert all(parameter.requires_grad for parameter in loaded.parameters())
    assert [path.name for path in tmp_path.iterdir()] == ["previewer.safetensors"]


def test_number_format_of_the_loaded_weights(previewer: modules.Network, tmp_path: Path) -> None:
    save_network(tmp_path / "p.safetensors", previewer, "previewer", {})
    loaded = load_network(tmp_path / "p.safetensors", "previewer", dtype=torch.bfloat16)
    assert {t.dtype for t in loaded.state_dict().values()} == {torch.bfloat16, torch.int64}


def test_other_tensors_may_be_saved_in_their_place(previewer: modules.Network, tmp_path: Path) -> None:
    average = {key: torch.zeros_like(value) for key, value in previewer.state_dict().items()}
    save_network(tmp_path / "p.safetensors", previewer, "previewer", {}, tensors=average)
    assert all(not tensor.any() for tensor in read_tensors(tmp_path / "p.safetensors").values())


def test_changed_settings_of_a_loaded_network(tmp_path: Path, make: Any) -> None:
    save_network(tmp_path / "c.safetensors", make("stage_c"), "stage_c", {})
    loaded = load_network(tmp_path / "c.safetensors", "stage_c", changes={"dropout": 0.3})
    assert loaded.config["dropout"] == 0.3


def test_where_weights_are_found(tmp_path: Path) -> None:
    plain = touch(tmp_path / "run_c" / "weights" / "stage_c.safetensors")
    assert find_weights(plain, "anything") == plain
    assert find_weights(tmp_path / "run_c", "stage_c") == plain
    assert find_weights(tmp_path, "stage_c") == plain
    averaged = touch(tmp_path / "run_c" / "weights" / "stage_c_ema.safetensors")
    assert find_weights(tmp_path / "run_c", "stage_c") == averaged
    assert find_weights(tmp_path, "stage_c", ema=False) == plain
    with pytest.raises(FileNotFoundError, match=r"no weights of stage_b; expected a file, a run's folder"):
        find_weights(tmp_path, "stage_b")
    with pytest.raises(FileNotFoundError, match="no weights of stage_b"):
        find_weights(tmp_path / "nowhere", "stage_b")
    touch(tmp_path / "other" / "weights" / "stage_c.safetensors")
    with pytest.raises(ValueError, match=r"several runs hold stage_c \(.*other.*run_c.*\); name one of them"):
        find_weights(tmp_path, "stage_c")


def test_of_two_files_in_a_component_the_one_that_is_no_pickle(tmp_path: Path) -> None:
    for name in ("config.json", "diffusion_pytorch_model.bin", "diffusion_pytorch_model.fp16.safetensors"):
        touch(tmp_path / name)
    assert find_weights(tmp_path, "stage_c").name == "diffusion_pytorch_model.bin"  # rather the full ones
    touch(tmp_path / "diffusion_pytorch_model.safetensors")
    assert find_weights(tmp_path, "stage_c").name == "diffusion_pytorch_model.safetensors"


def test_files_that_are_no_weights(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no such weight file"):
        read_header(tmp_path / "none.safetensors")
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"not a weight file at all")
    with pytest.raises(ValueError, match=r"broken.safetensors: not a whole safetensors file"):
        load_network(broken, "stage_a")


def test_half_a_file(previewer: modules.Network, tmp_path: Path) -> None:
    file = tmp_path / "p.safetensors"
    save_network(file, previewer, "previewer", {})
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ValueError, match="not a whole safetensors file"):
        load_network(file, "previewer")


def test_unreadable_header(tmp_path: Path) -> None:
    file = tmp_path / "p.safetensors"
    save_file({"a": torch.zeros(1)}, file, metadata={"kaskade": "{"})
    with pytest.raises(ValueError, match="its header is not readable"):
        read_header(file)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("blocks.0.bias"), "1 tensors missing, such as blocks.0.bias"),
        (lambda t: t.update(extra=torch.zeros(1)), "1 tensors unexpected, such as extra"),
        (
            lambda t: t.update({"blocks.0.bias": torch.zeros(3)}),
            r"blocks.0.bias: expected shape \[16\], found \[3\]",
        ),
    ],
)
def test_tensors_that_do_not_fit_are_named(change: Any, message: str, previewer: Any, tmp_path: Path) -> None:
    tensors = dict(previewer.state_dict())
    change(tensors)
    save_network(tmp_path / "p.safetensors", previewer, "previewer", {}, tensors=tensors)
    with pytest.raises(ValueError, match=message):
        load_network(tmp_path / "p.safetensors", "previewer")


def test_another_networks_file(previewer: modules.Network, tmp_path: Path) -> None:
    save_network(tmp_path / "p.safetensors", previewer, "previewer", {})
    with pytest.raises(ValueError, match="expected the network stage_c, found previewer"):
        load_network(tmp_path / "p.safetensors", "stage_c")


HEADS_OF_64 = {"c_hidden": [64, 128], "nhead": [1, 2], "c_cond": 32, "c_r": 8}
OFFICIAL = {
    "stage_a": {"levels": 3, "bottleneck_blocks": 2, "c_hidden": 16, "codebook_size": 16},
    "stage_b": {
        **HEADS_OF_64,
        "blocks": [[1, 2], [3, 1]],
        "block_repeat": [[1, 1], [2, 3]],
        "level_config": ["CT", "CTA"],
        "nhead": [-1, 2],
        "c_clip": 12,
        "c_clip_seq": 3,
        "dropout": [0.0, 0.1],
    },
    "stage_c": {
        **HEADS_OF_64,
        "blocks": [[1, 2], [2, 3]],
        "block_repeat": [[1, 1], [1, 1]],
        "t_conds": ["sca"],
        "c_clip_seq": 2,
        "dropout": [0.1, 0.1],
    },
    "previewer": {"c_hidden": 16},
    "discriminator": {"c_hidden": 16, "depth": 5, "c_cond": 3},
    "semantic_compressor": {"c_latent": 8},
}


@pytest.mark.parametrize("name", OFFICIAL)
def test_official_files_need_no_header(name: str, tmp_path: Path) -> None:
    """Official files are bare state dicts; network and size show in the names and shapes."""
    network = modules.build(name, OFFICIAL[name])
    file = tmp_path / "whatever.safetensors"
    save_file(network.state_dict(), file)
    assert read_header(file) == {}
    loaded = load_network(file, name)
    assert same_weights(loaded, network)
    assert loaded.config == network.config


def test_unknown_tensors_are_refused(tmp_path: Path) -> None:
    save_file({"some.weight": torch.zeros(2)}, tmp_path / "x.safetensors")
    with pytest.raises(
        ValueError, match=r"x.safetensors: tensors of none of the networks .*found some.weight"
    ):
        load_network(tmp_path / "x.safetensors", "stage_a")


def test_header_is_json_under_one_key(previewer: modules.Network, tmp_path: Path) -> None:
    save_network(tmp_path / "p.safetensors", previewer, "previewer", {})
    with safe_open(tmp_path / "p.safetensors", "pt") as file:
        header = json.loads(file.metadata()["kaskade"])
    assert header["network"] == "previewer"
