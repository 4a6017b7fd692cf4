"""The frozen encoders: now and then a picture, and where a reader finds them."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from modules.schema import ConfigError, from_plain
from modules.settings import ImageEncoderSettings, TextEncoderSettings
from train.encoders import Encoders
from train.rng import step_rng

SMALL = {
    "hidden_size": 8,
    "intermediate_size": 8,
    "projection_dim": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}
TEXT = TextEncoderSettings(config=SMALL, words=["red"], max_length=8)
IMAGE = ImageEncoderSettings(config={**SMALL, "image_size": 8, "patch_size": 4})


def made(image: ImageEncoderSettings | None = IMAGE) -> Encoders:
    encoders = Encoders(TEXT, image, torch.float32)
    encoders.build(torch.device("cpu"))
    return encoders


def embedded(encoders: Encoders, images: Tensor, share: float) -> Tensor | None:
    return encoders.images(images, share, step_rng(0, 0, 0, len(images)))


def test_about_the_asked_share_of_pictures_is_embedded_and_the_others_are_zero() -> None:
    encoders, images = made(), torch.rand(60, 3, 8, 8)
    some, all_of_them = embedded(encoders, images, 0.4), embedded(encoders, images, 1.0)
    assert some is not None and all_of_them is not None
    kept = (some != 0).any(dim=(1, 2))
    assert 12 < kept.sum() < 36
    torch.testing.assert_close(some[kept], all_of_them[kept])


def test_no_picture_kept_and_no_encoder_are_no_condition() -> None:
    assert embedded(made(), torch.rand(3, 3, 8, 8), 0.0) is None
    assert embedded(made(image=None), torch.rand(3, 3, 8, 8), 1.0) is None


def test_an_encoder_that_others_hold_parts_of_runs_even_when_no_picture_is_kept(monkeypatch) -> None:
    """Otherwise ranks that keep some would wait for this one's part for ever."""
    encoders, seen = made(), []
    encoders.encoders["image_encoder"].register_forward_hook(lambda _, inputs, output: seen.append(inputs[0]))
    assert embedded(encoders, torch.rand(3, 3, 8, 8), 0.0) is None and not seen
    monkeypatch.setattr("train.encoders.is_sharded", lambda network: True)
    assert embedded(encoders, torch.rand(3, 3, 8, 8), 0.0) is None and len(seen) == 1


def test_the_choice_does_not_depend_on_the_rest_of_the_batch() -> None:
    encoders, images = made(), torch.rand(8, 3, 8, 8)
    whole = embedded(encoders, images, 0.5)
    part = encoders.images(images[5:], 0.5, step_rng(0, 0, 5, 3))
    assert whole is not None
    torch.testing.assert_close(whole[5:], torch.zeros(3, 1, 8) if part is None else part)


def test_encoders_are_frozen_and_keep_no_graph() -> None:
    encoders = made()
    assert not encoders.text(["red", ""]).tokens.requires_grad
    for encoder in encoders.encoders.values():
        assert not encoder.training and not any(p.requires_grad for p in encoder.parameters())


def test_facts_name_the_source_or_the_folder_inside_the_run(tmp_path: Path) -> None:
    made().export(tmp_path)
    assert made().facts() == {"text_encoder": "text_encoder", "image_encoder": "image_encoder"}
    assert (tmp_path / "text_encoder").is_dir() and (tmp_path / "image_encoder").is_dir()
    source = str(tmp_path / "text_encoder")
    named = Encoders(TextEncoderSettings(source=source), None, torch.float32)
    assert named.facts() == {"text_encoder": source}


@pytest.mark.parametrize("plain", [{}, {"source": "a/b", "config": SMALL}])
def test_an_encoder_has_just_one_origin(plain: dict) -> None:
    with pytest.raises(ConfigError, match="model.text_encoder: set either source"):
        from_plain(TextEncoderSettings, plain, "model.text_encoder")
