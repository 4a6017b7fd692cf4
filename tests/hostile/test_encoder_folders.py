"""Encoders' folders of strangers: nothing in them is run or followed, no room is taken for lies."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from inference.networks import named_encoder
from modules.encoders import ImageEncoder, TextEncoder
from tests.hostile.broken_files import archive, calling


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clip") / "text_encoder"
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    TextEncoder(config={**sizes, "projection_dim": 12}, words=["a"], max_length=12).save(folder)
    return folder


CLIPS: dict[str, tuple[dict[str, Any], str]] = {
    "blocks without end": ({"num_hidden_layers": 10**5}, "asks for more than"),
    "wide": ({"hidden_size": 2**16}, "expected shape"),
    "wider": ({"hidden_size": 10**12}, "hidden_size: expected 1 to 1048576"),
    "another word": ({"hidden_act": "os.system"}, "holds no CLIPTextModelWithProjection"),
    "text": ({"hidden_size": "16"}, "holds no CLIPTextModelWithProjection"),
    "infinite": ({"layer_norm_eps": 1e400}, "is no number|finite"),
}


@pytest.mark.parametrize("kind", CLIPS)
def test_the_config_of_an_encoder_is_compared_with_its_weights(kind: str, clip: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(clip, tmp_path / "text_encoder")
    changes, message = CLIPS[kind]
    change_json(folder / "config.json", changes)
    with pytest.raises(ValueError, match=message) as raised:
        TextEncoder(source=str(folder))
    assert str(raised.value).startswith("text_encoder.source") and "\n" not in str(raised.value)


def test_nothing_in_an_encoders_folder_is_run_or_followed(clip: Path, tmp_path: Path) -> None:
    folder, canary = shutil.copytree(clip, tmp_path / "text_encoder"), tmp_path / "canary"
    (folder / "evil.py").write_text(f"open({str(canary)!r}, 'w')\n")
    code = {"AutoConfig": "evil.X", "AutoModel": "evil.X", "AutoTokenizer": ["evil.X", "evil.X"]}
    more = {
        "auto_map": code,
        "_attn_implementation": "stranger/kernel",
        "quantization_config": {"quant_method": "x"},
    }
    change_json(folder / "config.json", more)
    change_json(folder / "tokenizer_config.json", {"auto_map": code, "tokenizer_class": "evil.X"})
    TextEncoder(source=str(folder))  # read as if they were not there
    assert not canary.exists()
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "stranger/model"}))
    with pytest.raises(ValueError, match=r"adapter_config\.json names another model"):
        TextEncoder(source=str(folder))


def test_an_encoder_with_a_pickle_alone(clip: Path, tmp_path: Path) -> None:
    folder, canary = shutil.copytree(clip, tmp_path / "text_encoder"), tmp_path / "canary"
    state = TextEncoder(source=str(folder)).model.state_dict()
    (folder / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="no weights in it"):
        TextEncoder(source=str(folder))
    torch.save(state, folder / "pytorch_model.bin")
    assert torch.equal(TextEncoder(source=str(folder)).model.state_dict()["text_projection.weight"],
                       state["text_projection.weight"])  # fmt: skip
    archive(folder / "pytorch_model.bin", calling(canary))
    with pytest.raises(ValueError, match="not a file of plain tensors"):
        TextEncoder(source=str(folder))
    assert not canary.exists()


def test_an_image_encoder_is_not_a_text_encoder(clip: Path) -> None:
    with pytest.raises(ValueError, match="image_encoder.source"):
        ImageEncoder(source=str(clip))


def test_weights_name_encoders_in_their_run_only_or_that_are_here(tmp_path: Path) -> None:
    (tmp_path / "run" / "text_encoder").mkdir(parents=True)
    (tmp_path / "other").mkdir()
    run = tmp_path / "run"
    assert named_encoder("text_encoder", run) == run / "text_encoder"
    assert named_encoder(str(tmp_path / "other"), run) == tmp_path / "other"
    with pytest.raises(ValueError, match="outside of it"):
        named_encoder("../other", run)
    with pytest.raises(FileNotFoundError, match="stranger/clip.*is not here; it is fetched when you name it"):
        named_encoder("stranger/clip", run)


def change_json(path: Path, changes: dict[str, Any]) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
