"""Weight files of strangers: one line for what is wrong, nothing is run, no room is taken for lies."""

import json
import pickle
import re
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch

from modules import build
from modules.schema import one_line
from modules.weights import load_network, read_header, save_network
from modules.weights.imagenet import compressor_from_imagenet
from modules.weights.lora_files import read_lora
from modules.weights.pickled import read_pickled
from modules.weights.sources import open_source
from tests.hostile.broken_files import (
    BODY,
    WORD,
    Calls,
    archive,
    calling,
    doubling,
    safetensors,
    with_header,
)  # fmt: skip

TWICE = b'{"a":' + json.dumps(WORD).encode() + b',"a":' + json.dumps(WORD).encode() + b"}"
HEADS: dict[str, tuple[Any, str]] = {
    "overlapping": ({"a": WORD, "b": WORD}, "invalid offset"),
    "beyond the end": ({"a": WORD, "b": WORD | {"data_offsets": [16, 32]}}, "not fully covered"),
    "a hole": ({"a": {"dtype": "F32", "shape": [2], "data_offsets": [8, 16]}}, "invalid offset"),
    "backwards": ({"a": WORD | {"data_offsets": [16, 0]}}, "not a whole safetensors file"),
    "negative": ({"a": WORD | {"data_offsets": [-16, 0]}}, "integer `-16`"),
    "negative shape": ({"a": WORD | {"shape": [-4]}}, "integer `-4`"),
    "too large": ({"a": WORD | {"shape": [2**40, 2**40]}}, "overflow"),
    "unknown numbers": ({"a": WORD | {"dtype": "F99"}}, "unknown variant `F99`"),
    "not a number": (b'{"a":{"dtype":"F32","shape":[NaN],"data_offsets":[0,16]}}', "invalid JSON"),
    "twice": (TWICE, "the name 'a' is there twice"),
    "nested": (b'{"a":' * 100_000, "recursion limit"),
    "not text": (b'{"\xff":1}', "UTF-8"),
    "not even JSON": (b"{", "not a whole safetensors file"),
}


@pytest.mark.parametrize("kind", HEADS)
def test_a_head_that_lies_is_refused_in_one_line(kind: str, tmp_path: Path) -> None:
    head, message = HEADS[kind]
    file = safetensors(tmp_path / "x.safetensors", head)
    for read in (open_source, read_header, read_lora):
        with pytest.raises(ValueError, match=re.escape(message)) as raised:
            read(file)
        assert str(raised.value).startswith(str(file)) and "\n" not in str(raised.value)


@pytest.mark.parametrize("length", [2**62, 10**9, 2**64 - 1])
def test_a_head_that_says_it_is_longer_than_the_file(length: int, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not a whole safetensors file"):
        open_source(safetensors(tmp_path / "x.safetensors", {"a": WORD}, length=length))


def test_a_head_of_a_hundred_megabytes(tmp_path: Path) -> None:
    file = safetensors(tmp_path / "x.safetensors", b"", BODY, length=100_000_000)
    with file.open("r+b") as opened:
        opened.truncate(100_000_100)  # nothing of it is on the disk
    with pytest.raises(ValueError, match="expected a description of at most 16777216 bytes"):
        open_source(file)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("[" * 200_000, "nested too deeply"),
        ('{"x": ' + "9" * 5000 + "}", "not readable"),
        ('{"compression": NaN}', "NaN is no number"),
        ('{"compression": 1e-9}', r"compression: expected at least 1"),
        ('{"image_size_px": 1000000000}', r"image_size_px: expected at most 16384"),
        ('{"text_encoder": ["x"]}', r"text_encoder: expected text"),
        ('{"parts": [1]}', r"parts: expected settings"),
        ('{"parts": {"stage_a": {"config": 3}}}', r"parts: stage_a\.config: expected settings"),
        ('{"network": {"a": 1}}', r"network: expected text"),
        ('{"network": null}', r"network: expected text"),
    ],
)
def test_our_header_is_read_as_plain_data_within_bounds(header: str, message: str, tmp_path: Path) -> None:
    file = with_header(tmp_path / "x.safetensors", header)
    with pytest.raises(ValueError, match=f"its header.*{message}"):
        read_header(file)


LARGE: list[tuple[str, dict[str, Any], str]] = [
    ("stage_c", {"blocks": [[4096, 4096], [4096, 4096]]}, "asks for more than"),
    ("stage_c", {"blocks": [[10**6, 1], [1, 1]]}, r"blocks\[0\]\[0\]: expected 0 to 4096, found 1000000"),
    ("stage_c", {"c_hidden": [10**6, 10**6]}, "tensors missing|asks for more than 1232"),
    ("stage_c", {"c_hidden": [10**12, 16]}, r"c_hidden\[0\]: expected 1 to 1048576"),
    ("stage_c", {"kernel_size": "3"}, "kernel_size: expected a whole number"),
    ("stage_c", {"c_hidden": []}, "blocks: expected 0 values"),
    ("stage_c", {"blocks": [[1, 1]]}, "not enough values|nothing can be built of it"),
    ("stage_c", {"dropout": 2.0}, "dropout: expected a share"),
    ("stage_c", {"level_config": ["CTA" * 10**5, "CTA"]}, "asks for more than"),
    ("stage_a", {"levels": 10**9}, "levels: expected 1 to 16"),
    ("discriminator", {"depth": 10**9}, "depth: expected 1 to 16"),
    ("previewer", {"c_hidden": 32}, r"blocks\.0\.weight: expected shape \[32, 16, 1, 1\], found \[16, "),
    ("previewer", {"_target_": "os.system"}, "keyword '_target_' is not known"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "changes", "message"), LARGE)
def test_a_config_in_a_header_builds_nothing_larger_than_the_file(
    name: str, changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    small = {"c_hidden": 16} if name == "previewer" else {}
    with torch.device("meta"):
        network = build("previewer", {"c_hidden": 16})
    tensors = {key: torch.zeros(value.shape) for key, value in network.state_dict().items()}
    file = with_header(tmp_path / "x.safetensors", {"network": name, "config": small | changes}, tensors)
    with pytest.raises(ValueError, match=message) as raised:
        load_network(file, name)
    assert str(raised.value).startswith(str(file)) and "\n" not in str(raised.value)


def test_messages_show_what_a_terminal_would_obey(tmp_path: Path) -> None:
    shown = one_line("a\x1b[2Jb\nc \u202e" + "x" * 10_000)
    assert shown.startswith("a\\x1b[2Jb c \\u202e") and len(shown) < 1100 and shown.isprintable()


@pytest.mark.parametrize("name", ["x.pt", "x.ckpt", "x.bin"])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_is_not_run(name: str, zipped: bool, tmp_path: Path) -> None:
    file, canary = tmp_path / name, tmp_path / "canary"
    if zipped:
        archive(file, calling(canary))
    else:
        file.write_bytes(calling(canary))
    for read in (open_source, read_lora, compressor_from_imagenet if name == "x.pt" else read_pickled):
        with pytest.raises(ValueError, match="not a file of plain tensors|not torchvision"):
            read(file, {}) if read is compressor_from_imagenet else read(file)  # type: ignore[operator]
    assert not canary.exists()


def test_what_a_pickle_calls_is_named(tmp_path: Path) -> None:
    file = archive(tmp_path / "x.pt", calling(tmp_path / "canary"))
    with pytest.raises(
        ValueError, match=r"it calls (_?io|builtins|__builtin__)\.open, which no tensor needs"
    ):
        read_pickled(file)


SWELLING: dict[str, tuple[bytes, int, str]] = {
    "compressed": (b"\x80\x02}." + b" " * 10**6, zipfile.ZIP_DEFLATED, "its parts are compressed"),
    "doubling": (doubling(40), zipfile.ZIP_STORED, "it calls _codecs.encode"),
    "steps": (b"\x80\x02" + b"]" * 10**6 + b".", zipfile.ZIP_STORED, "too many for tensors"),
    "bytearray": (
        pickle.dumps(OrderedDict(a=Calls(bytearray, 10**12)), protocol=2), zipfile.ZIP_STORED, "bytearray",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", SWELLING)
def test_an_archive_takes_no_more_room_than_it_has(kind: str, tmp_path: Path) -> None:
    content, compression, message = SWELLING[kind]
    with pytest.raises(ValueError, match=message):
        read_pickled(archive(tmp_path / "x.pt", content, compression))


def test_tensors_that_would_swell_when_they_are_written_out(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1).expand(10**10)}, tmp_path / "x.pt")
    with pytest.raises(ValueError, match="its tensors would take 40000000000 bytes"):
        read_pickled(tmp_path / "x.pt")
    torch.save({"a": torch.zeros(3, device="meta")}, tmp_path / "y.pt")
    with pytest.raises(ValueError, match="not a file of plain tensors"):
        read_pickled(tmp_path / "y.pt")


def test_what_torch_saves_is_read(tmp_path: Path) -> None:
    weight = torch.arange(4.0)
    for zipped in (True, False):
        torch.save(
            {"state_dict": OrderedDict(a=weight, b=torch.nn.Parameter(weight.bfloat16())), "step": 3},
            tmp_path / "x.ckpt",
            _use_new_zipfile_serialization=zipped,
        )
        assert torch.equal(read_pickled(tmp_path / "x.ckpt")["a"], weight)


def test_an_index_stays_in_its_folder(tmp_path: Path) -> None:
    for name in ("../x.safetensors", "/etc/passwd", "x.index.json", "", 3):
        index = tmp_path / "x.index.json"
        index.write_text(json.dumps({"weight_map": {"a": name}}))
        with pytest.raises(ValueError, match="not an index of weight files"):
            open_source(index)


def test_a_networks_own_file_is_read_as_before(tmp_path: Path) -> None:
    network = build("previewer", {"c_hidden": 16})
    save_network(tmp_path / "x.safetensors", network, "previewer", {"random_scale": [0.5, 1.0]})
    assert load_network(tmp_path / "x.safetensors", "previewer").config == network.config
