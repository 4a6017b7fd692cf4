"""Files that weights are read from: pickled ones, those in parts, unknown ones; and lazy writing."""

import json
import pickle
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import modules
from modules.weights import (
    contents,
    describe,
    find_weights,
    load_network,
    read_header,
    read_tensors,
    save_network,
)
from modules.weights.components import write_component
from modules.weights.lazy import LazyTensor, lazy_state
from modules.weights.parts import Part
from modules.weights.sources import open_source
from modules.weights.writing import CODES, write_tensors

CONFIG = {"c_in": 4, "c_hidden": 16}


@pytest.fixture
def previewer() -> modules.Network:
    return modules.build("previewer", CONFIG)


def same(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    theirs = other.state_dict()
    return all(torch.equal(tensor, theirs[key]) for key, tensor in one.state_dict().items())


@pytest.mark.parametrize("ending", [".pt", ".ckpt", ".bin"])
@pytest.mark.parametrize("wrapper", [None, "state_dict", "model", "ema"])
def test_pickled_state_dicts(
    wrapper: str | None, ending: str, previewer: modules.Network, tmp_path: Path
) -> None:
    state = previewer.state_dict()
    content = state if wrapper is None else {wrapper: state, "step": 3, "optimizer": {"state": {}}}
    torch.save(content, tmp_path / f"p{ending}")
    assert same(load_network(tmp_path / f"p{ending}", "previewer"), previewer)
    assert describe(tmp_path / f"p{ending}")[0] == "previewer"


def test_averaged_weights_of_a_pickled_checkpoint(previewer: modules.Network, tmp_path: Path) -> None:
    zeros = {key: torch.zeros_like(value) for key, value in previewer.state_dict().items()}
    torch.save({"model": previewer.state_dict(), "ema": zeros}, tmp_path / "p.ckpt")
    assert same(load_network(tmp_path / "p.ckpt", "previewer", ema=False), previewer)
    averaged = load_network(tmp_path / "p.ckpt", "previewer")
    assert not any(tensor.any() for tensor in averaged.state_dict().values())


def test_older_pickled_files(previewer: modules.Network, tmp_path: Path) -> None:
    torch.save(previewer.state_dict(), tmp_path / "p.pt", _use_new_zipfile_serialization=False)
    assert same(load_network(tmp_path / "p.pt", "previewer"), previewer)


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("run_while_loading"),)


def test_nothing_in_a_pickled_file_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"model": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(ValueError, match="evil.pt: not a file of plain tensors"):
        load_network(tmp_path / "evil.pt", "previewer")
    (tmp_path / "bare.pt").write_bytes(pickle.dumps(Evil(), protocol=2))
    with pytest.raises(ValueError, match="bare.pt: not a file of plain tensors"):
        load_network(tmp_path / "bare.pt", "previewer")
    assert not Path("run_while_loading").exists()


def test_pickled_files_without_tensors(tmp_path: Path) -> None:
    torch.save({"step": 1, "loss": 0.5}, tmp_path / "p.pt")
    with pytest.raises(ValueError, match="p.pt: no state dict in it; .*found step, loss"):
        load_network(tmp_path / "p.pt", "previewer")


@pytest.mark.parametrize("content", [b"", b"no pickle\n", pickle.dumps([1, 2])[:-3]])
def test_damaged_pickled_files(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "p.ckpt").write_bytes(content)
    with pytest.raises(ValueError, match="p.ckpt: not a file of plain tensors"):
        load_network(tmp_path / "p.ckpt", "previewer")


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("[1]", "its header: expected a mapping, found a list"),
        ('{"network": "lora", "layout": "official"}', "its header says lora, without the config"),
        ('{"network": "previewer", "config": []}', r"its header\.config: expected settings, found \[\]"),
    ],
)
def test_headers_that_describe_no_network(
    header: str, message: str, previewer: modules.Network, tmp_path: Path
) -> None:
    save_file(previewer.state_dict(), tmp_path / "x.safetensors", {"kaskade": header})
    with pytest.raises(ValueError, match=f"x.safetensors: {message}"):
        load_network(tmp_path / "x.safetensors", "previewer")


@pytest.mark.parametrize("index", ["[]", "{}", '{"weight_map": {}}', '{"weight_map": {"a": 3}}', "{"])
def test_damaged_indices(index: str, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors.index.json"
    path.write_text(index)
    for read in (open_source, read_header):
        with pytest.raises(ValueError, match="index.json"):
            read(path)


def test_number_formats_that_torch_lacks(tmp_path: Path) -> None:
    head = json.dumps({"a": {"dtype": "C64", "shape": [1], "data_offsets": [0, 8]}}).encode()
    (tmp_path / "x.safetensors").write_bytes(len(head).to_bytes(8, "little") + head + bytes(8))
    with pytest.raises(ValueError, match="x.safetensors: a: tensors of C64 cannot be read"):
        open_source(tmp_path / "x.safetensors")
    head = json.dumps({"a": {"dtype": "F6_E2M3", "shape": [4], "data_offsets": [0, 3]}}).encode()
    (tmp_path / "x.safetensors").write_bytes(len(head).to_bytes(8, "little") + head + bytes(3))
    with pytest.raises(ValueError, match="x.safetensors: holds tensors that cannot be read"):
        read_tensors(tmp_path / "x.safetensors")


def test_a_text_encoder_without_projection_is_said(tmp_path: Path) -> None:
    """As in the files of other families, whose text encoders have none."""
    tensors = {
        "text_model.embeddings.token_embedding.weight": torch.zeros(4, 8),
        "text_model.embeddings.position_embedding.weight": torch.zeros(4, 8),
        "text_model.encoder.layers.0.mlp.fc1.weight": torch.zeros(8, 8),
    }
    save_file(tensors, tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match="x.safetensors: tensor 'text_projection.weight' is missing"):
        describe(tmp_path / "x.safetensors")


def test_keys_that_are_not_understood(previewer: modules.Network, tmp_path: Path) -> None:
    save_file({"some.weight": torch.zeros(1)}, tmp_path / "x.safetensors")
    with pytest.raises(
        ValueError, match="x.safetensors: tensors of none of the networks .*found some.weight"
    ):
        load_network(tmp_path / "x.safetensors", "stage_c")
    prefix = "model.diffusion_model."
    both = {f"{prefix}{key}": tensor for key, tensor in previewer.state_dict().items()}
    save_file({**both, "what.is.this": torch.zeros(1)}, tmp_path / "y.safetensors")
    with pytest.raises(ValueError, match="1 tensors of a checkpoint not understood: what.is.this"):
        load_network(tmp_path / "y.safetensors", "stage_c")
    save_file({"clip_txt_mapper.weight": torch.zeros(2, 2)}, tmp_path / "z.safetensors")
    with pytest.raises(ValueError, match="z.safetensors: tensor 'clip_txt_pooled_mapper.weight' is missing"):
        load_network(tmp_path / "z.safetensors", "stage_c")


def test_files_in_parts(tmp_path: Path, make: Any) -> None:
    network = make("stage_b", level_config=["CT", "CT", "CTA"], nhead=[-1, -1, 4])
    part = Part("stage_b", network.config, lazy_state(network.state_dict()), {"note": "kept"})
    write_component(tmp_path / "b", part, shard_bytes=20_000)
    index = tmp_path / "b" / "diffusion_pytorch_model.safetensors.index.json"
    assert find_weights(tmp_path / "b", "stage_b") == index
    assert read_header(index, "stage_b")["note"] == "kept"
    assert same(load_network(index, "stage_b"), network)
    content = json.loads(index.read_text())
    index.write_text(
        json.dumps({"weight_map": {**content["weight_map"], "absent": min(content["weight_map"].values())}})
    )
    with pytest.raises(ValueError, match="index.json: .*has no tensor absent"):
        load_network(index, "stage_b")
    index.write_text("{}")
    with pytest.raises(ValueError, match="index.json: not an index of weight files"):
        load_network(index, "stage_b")


def test_tensors_are_read_one_by_one_while_written(tmp_path: Path) -> None:
    """The file equals the library's own; no tensor is asked for while another one is still there."""
    made: list[weakref.ref[torch.Tensor]] = []

    def tensor(value: float) -> torch.Tensor:
        assert not any(reference() is not None for reference in made)
        new = torch.full((7, 11), value)
        made.append(weakref.ref(new))
        return new

    state = {f"t{n}": LazyTensor((7, 11), torch.float32, lambda n=n: tensor(float(n))) for n in range(20)}
    sizes: list[int] = []
    write_tensors(tmp_path / "lazy.safetensors", state, {"who": "me"}, sizes.append)
    assert sizes == [7 * 11 * 4] * 20
    loaded = load_file(tmp_path / "lazy.safetensors")
    assert all(bool((loaded[f"t{n}"] == n).all()) for n in range(20))


def test_every_number_format_and_shape(tmp_path: Path) -> None:
    rng = torch.Generator().manual_seed(0)
    tensors = {
        f"{dtype} {shape}": torch.randn(shape, generator=rng).mul(50).abs().to(dtype)
        for dtype in CODES
        for shape in ((), (0, 3), (5,), (3, 2, 1))
    }
    tensors["turned"] = torch.arange(6.0).reshape(2, 3).t()
    write_tensors(tmp_path / "all.safetensors", lazy_state(tensors), {})
    with safe_open(tmp_path / "all.safetensors", "pt") as file:
        for name, tensor in tensors.items():
            read = file.get_tensor(name)
            assert (read.dtype, read.shape) == (tensor.dtype, tensor.shape)
            assert torch.equal(
                read.reshape(-1).view(torch.uint8), tensor.reshape(-1).contiguous().view(torch.uint8)
            )
    source = open_source(tmp_path / "all.safetensors")
    assert {name: (lazy.dtype, lazy.shape) for name, lazy in source.state.items()} == {
        name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()
    }
    with pytest.raises(ValueError, match="x: tensors of torch.complex64 cannot be written"):
        write_tensors(
            tmp_path / "x.safetensors", lazy_state({"x": torch.zeros(1, dtype=torch.complex64)}), {}
        )
    assert [path.name for path in tmp_path.iterdir()] == ["all.safetensors"]


def test_what_folders_hold(previewer: modules.Network, tmp_path: Path) -> None:
    """Runs, released files side by side, and nothing at all."""
    (tmp_path / "run" / "weights").mkdir(parents=True)
    save_network(tmp_path / "run" / "weights" / "previewer.safetensors", previewer, "previewer", {})
    assert contents(tmp_path) == contents(tmp_path / "run")
    (tmp_path / "models").mkdir()
    for file in ("effnet_encoder", "stage_b_lite", "stage_c", "stage_c_lite"):
        (tmp_path / "models" / f"{file}.safetensors").touch()
    found = {name: path.stem for name, path in contents(tmp_path / "models").items()}
    assert found == {"semantic_compressor": "effnet_encoder", "stage_b": "stage_b_lite", "stage_c": "stage_c"}
    assert contents(tmp_path / "nowhere") == {}
    assert contents(tmp_path / "run" / "weights" / "previewer.safetensors").keys() == {"previewer"}
