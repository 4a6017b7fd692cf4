import os
from pathlib import Path
from typing import Any

import pytest
import torch

from modules.encoders import ImageEncoder, TextEncoder

SIZES: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "projection_dim": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}
WORDS = ["a", "red", "reddish", "edd", "square", "squares", "blue", "in", "ring", "Größe", "7"]


@pytest.fixture
def encoder() -> TextEncoder:
    return TextEncoder(config=SIZES, words=WORDS, max_length=12)


def ids(encoder: TextEncoder, caption: str) -> list[int]:
    return encoder.tokenizer(caption).input_ids


@pytest.mark.parametrize("word", WORDS)
def test_each_word_is_one_token(word: str, encoder: TextEncoder) -> None:
    start, *inner, end = ids(encoder, word)
    assert len(inner) == 1
    assert (start, end) == (encoder.tokenizer.bos_token_id, encoder.tokenizer.eos_token_id)
    assert encoder.tokenizer.decode(inner).strip() == word.lower()


def test_words_have_tokens_of_their_own(encoder: TextEncoder) -> None:
    assert len({ids(encoder, word)[1] for word in WORDS}) == len(WORDS)


def test_other_text_falls_to_bytes(encoder: TextEncoder) -> None:
    known = ids(encoder, "red square")
    assert len(known) == 4
    assert ids(encoder, "RED   Square") == known
    assert len(ids(encoder, "xyz")) == 2 + 3
    assert len(ids(encoder, "é")) == 2 + 2
    unknown = encoder.tokenizer.convert_tokens_to_ids("")
    assert unknown not in ids(encoder, "漢字 ☃ xyz")[1:-1]


@pytest.mark.parametrize("word", ["two words", "top-left", "42", "", "it's"])
def test_what_is_not_one_word_is_refused(word: str) -> None:
    with pytest.raises(ValueError, match="text_encoder.words: .* is not one word"):
        TextEncoder(config=SIZES, words=[word])


def test_features(encoder: TextEncoder) -> None:
    features = encoder(["a red square", "", "squares " * 50])
    assert features.tokens.shape == (3, 12, 16)
    assert features.pooled.shape == (3, 1, 12)
    assert features.tokens.isfinite().all()
    assert not torch.allclose(features.pooled[0], features.pooled[1])


def test_padding_does_not_change_what_comes_before_it(encoder: TextEncoder, tmp_path: Path) -> None:
    encoder.save(tmp_path / "encoder")
    shorter = TextEncoder(source=str(tmp_path / "encoder"), max_length=8)
    short, long = shorter(["a red square"]), encoder(["a red square"])
    assert short.tokens.shape[1] == 8
    torch.testing.assert_close(short.tokens[:, :5], long.tokens[:, :5])
    torch.testing.assert_close(short.pooled, long.pooled)


@pytest.mark.skipif(os.name != "posix", reason="files have no such rights here")
def test_whoever_may_read_the_folder_may_read_the_encoder(encoder: TextEncoder, tmp_path: Path) -> None:
    encoder.save(tmp_path / "encoder")
    rights = (tmp_path / "encoder").stat().st_mode & 0o444
    assert {path.stat().st_mode & 0o444 for path in (tmp_path / "encoder").iterdir()} == {rights}


def test_captions_do_not_depend_on_their_batch(encoder: TextEncoder) -> None:
    both, alone = encoder(["a red square", "blue"]), encoder(["blue"])
    torch.testing.assert_close(both.tokens[1:], alone.tokens)


def test_tokens_are_from_before_the_final_norm(encoder: TextEncoder) -> None:
    caption = encoder.tokenizer(["a red square"], padding="max_length", return_tensors="pt")
    normed = encoder.model.text_model.final_layer_norm(encoder(["a red square"]).tokens)
    torch.testing.assert_close(normed, encoder.model(**caption).last_hidden_state)


def test_pooled_is_the_projected_end_token(encoder: TextEncoder) -> None:
    features = encoder(["a red square"])
    normed = encoder.model.text_model.final_layer_norm(features.tokens)[:, 4]  # start, three words, end
    torch.testing.assert_close(features.pooled[:, 0], encoder.model.text_projection(normed))


def test_seed_decides_the_weights_and_touches_no_other_random_number() -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    one, same, other = (TextEncoder(config=SIZES, seed=seed)(["x"]).pooled for seed in (0, 0, 1))
    assert torch.equal(torch.rand(1), expected)
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_saved_text_encoder_is_the_same(encoder: TextEncoder, tmp_path: Path) -> None:
    captions = ["a red square", "", "xyz 42", "squares " * 50]
    folder = tmp_path / "text_encoder"
    for _ in range(2):  # over an older one, too
        encoder.save(folder)
    again = TextEncoder(source=str(folder))
    assert again.max_length == 12
    for ours, theirs in zip(encoder(captions), again(captions), strict=True):
        assert torch.equal(ours, theirs)
    assert [path.name for path in tmp_path.iterdir()] == ["text_encoder"]


def test_bfloat16_text(encoder: TextEncoder) -> None:
    expected = encoder(["a red square"]).pooled
    found = encoder.bfloat16()(["a red square"]).pooled
    assert found.dtype == torch.bfloat16
    assert (found - expected).std() < 0.1 * expected.std()


def test_source_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for source in (str(tmp_path / "nowhere"), "nobody/has-this-model"):
        with pytest.raises(FileNotFoundError, match="text_encoder.source: .* download") as error:
            TextEncoder(source=source)
        assert "\n" not in str(error.value)


def test_a_file_is_no_source(tmp_path: Path) -> None:
    """Nor is it asked for on the hub."""
    (tmp_path / "x.safetensors").touch()
    with pytest.raises(ValueError, match="source: expected a folder .*, found the file .*x.safetensors"):
        TextEncoder(source=str(tmp_path / "x.safetensors"))


@pytest.mark.parametrize("kind", [TextEncoder, ImageEncoder])
def test_contradicting_settings(kind: Any) -> None:
    with pytest.raises(ValueError, match="set either source .* or config"):
        kind()
    with pytest.raises(ValueError, match="set either source .* or config"):
        kind(source="x", config=SIZES)
    with pytest.raises(ValueError, match="has no 'hidden'"):
        kind(config={"hidden": 3})


def test_pictures(tmp_path: Path) -> None:
    encoder = ImageEncoder(config={**SIZES, "image_size": 16, "patch_size": 8})
    images = torch.rand(2, 3, 40, 30)
    embeddings = encoder(images)
    assert embeddings.shape == (2, 1, 12)
    encoder.save(tmp_path / "image_encoder")
    assert torch.equal(ImageEncoder(source=str(tmp_path / "image_encoder"))(images), embeddings)
    assert encoder.bfloat16()(images).dtype == torch.bfloat16


def test_picture_encoder_looks_at_the_middle() -> None:
    encoder = ImageEncoder(config={**SIZES, "image_size": 16, "patch_size": 8})
    wide = torch.rand(1, 3, 16, 32)
    changed = wide.clone()
    changed[..., :7] = 0
    torch.testing.assert_close(encoder(changed), encoder(wide))
    torch.testing.assert_close(encoder(wide[..., 8:24]), encoder(wide))
