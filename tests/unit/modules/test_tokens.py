"""Trained tokens: what they change, what they leave alone, and what they begin with."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from modules.adapters.tokens import TrainedTokens
from modules.encoders import TextEncoder

SIZES = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "projection_dim": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}
WORDS = ["a", "red", "circle", "square", "train", "config"]
CAPTIONS = ["a red [moon]", "a [moon], red", "a circle", "square", ""]


@pytest.fixture
def encoder() -> TextEncoder:
    return TextEncoder(config=SIZES, words=WORDS, max_length=12).requires_grad_(False)


@pytest.fixture
def moon(encoder: TextEncoder) -> Iterator[TrainedTokens]:
    tokens = TrainedTokens.create(encoder, {"[moon]": "circle|square"})
    yield tokens
    tokens.detach()


def row(encoder: TextEncoder, word: str) -> torch.Tensor:
    return encoder.token_table.weight[encoder.tokenizer(word).input_ids[1]]


def same(ours: object, theirs: object) -> bool:
    return all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))  # type: ignore[call-overload]


def test_a_new_token_begins_as_the_mean_of_the_words_that_match(encoder: TextEncoder) -> None:
    tokens = TrainedTokens.create(encoder, {"[moon]": "circle|squ.*", "red": None, "a": "red"})
    mean = (row(encoder, "circle") + row(encoder, "square")) / 2
    torch.testing.assert_close(tokens.vector("[moon]")[0], mean)
    assert torch.equal(tokens.vector("red")[0], row(encoder, "red"))
    assert torch.equal(tokens.vector("a")[0], row(encoder, "red"))


def test_a_token_with_the_vector_of_a_word_means_that_word(encoder: TextEncoder) -> None:
    tokens = TrainedTokens.create(encoder, {"[moon]": "circle"})
    tokens.attach(encoder)
    both = encoder(["a red [moon]", "a red circle"])
    assert torch.equal(both.tokens[0], both.tokens[1])
    assert torch.equal(both.pooled[0], both.pooled[1])  # and the pooled state stands at the end token


@pytest.mark.parametrize("end", [2, None])
def test_the_pooled_state_stands_at_the_end_token_of_encoders_with_early_configs(
    encoder: TextEncoder, end: int | None, tmp_path: Path
) -> None:
    if end is not None:
        encoder.model.config.eos_token_id = end
    encoder.save(tmp_path / "encoder")
    read = TextEncoder(source=str(tmp_path / "encoder")).requires_grad_(False)
    assert same(read(["a red circle"]), encoder(["a red circle"]))
    TrainedTokens.create(read, {"[moon]": "circle"}).attach(read)
    assert torch.equal(read(["[moon] red"]).pooled, encoder(["circle red"]).pooled)


def test_upper_case_and_punctuation_do_not_hide_a_token_but_letters_do(
    encoder: TextEncoder, moon: TrainedTokens
) -> None:
    moon.attach(encoder)
    number = encoder.added_ids["[moon]"]
    for caption, times in {
        "a [Moon]": 1,
        "[moon],[moon]": 2,
        "red  [moon] a": 1,
        "a[moon]": 0,
        "moon": 0,
    }.items():
        assert encoder.tokenizer(caption).input_ids.count(number) == times, caption


def test_detached_the_encoder_is_bit_identical(encoder: TextEncoder, moon: TrainedTokens) -> None:
    before, table = encoder(CAPTIONS), encoder.token_table.weight.clone()
    moon.attach(encoder)
    assert not same(encoder(CAPTIONS), before)
    assert torch.equal(encoder(["a circle"]).tokens[0], before.tokens[2])  # other captions are as they were
    moon.detach()
    assert same(encoder(CAPTIONS), before)
    assert torch.equal(encoder.token_table.weight, table)


def test_only_the_vectors_get_gradients(encoder: TextEncoder) -> None:
    tokens = TrainedTokens.create(encoder, {"[moon]": "circle", "red": None, "square": None})
    tokens.attach(encoder)
    features = encoder(["a red [moon]"])
    (features.tokens.sum() + features.pooled.sum()).backward()
    assert all(parameter.grad is None for parameter in encoder.parameters())
    assert tokens.vector("[moon]").grad.abs().max() > 0  # type: ignore[union-attr]
    assert tokens.vector("red").grad.abs().max() > 0  # type: ignore[union-attr]
    assert tokens.vector("square").grad.abs().max() == 0  # type: ignore[union-attr]


def test_a_bfloat16_encoder_trains_float32_vectors(encoder: TextEncoder) -> None:
    tokens = TrainedTokens.create(encoder.bfloat16(), {"[moon]": "circle"})
    tokens.attach(encoder)
    features = encoder(["[moon]"])
    features.pooled.sum().backward()
    assert features.pooled.dtype == torch.bfloat16
    assert tokens.vector("[moon]").grad.dtype == torch.float32  # type: ignore[union-attr]


def test_several_sets_in_any_order(encoder: TextEncoder, moon: TrainedTokens) -> None:
    star = TrainedTokens.create(encoder, {"[star]": "red", "circle": None})
    torch.nn.init.ones_(star.vector("[star]"))
    before = encoder(CAPTIONS)
    star.attach(encoder)
    alone = encoder(["a [star]"])
    star.detach()
    moon.attach(encoder)
    only_moon = encoder(CAPTIONS)
    star.attach(encoder)
    assert same(encoder(["a [star]"]), alone)
    assert same(encoder(CAPTIONS), only_moon)  # "circle" has not been trained yet
    moon.detach()  # the other's id moves
    assert same(encoder(["a [star]"]), alone)
    star.detach()
    assert same(encoder(CAPTIONS), before)


def test_one_set_for_two_encoders(encoder: TextEncoder, moon: TrainedTokens) -> None:
    other = TextEncoder(config=SIZES, words=WORDS, max_length=12).requires_grad_(False)
    moon.attach(encoder)
    moon.attach(other)
    assert same(encoder(CAPTIONS), other(CAPTIONS))
    with pytest.raises(ValueError, match="already attached"):
        moon.attach(other)


def test_words_that_are_names_of_methods_can_be_trained_too(encoder: TextEncoder) -> None:
    tokens = TrainedTokens.create(encoder, {"train": None, "config": None})
    assert set(tokens.state_dict()) == {"train.clip_g", "config.clip_g"}
    assert tokens.train().config == {"tokens": ["train", "config"], "width": 16}
    again = TrainedTokens(**tokens.config)
    again.load_state_dict(tokens.state_dict())
    assert torch.equal(again.vector("train"), tokens.vector("train"))


def test_from_a_file(encoder: TextEncoder, moon: TrainedTokens) -> None:
    again = TrainedTokens.from_vectors({"[moon]": moon.vector("[moon]").detach()})
    assert torch.equal(again.vector("[moon]"), moon.vector("[moon]"))
    with pytest.raises(ValueError, match=r"\[moon\]: expected one vector \[1, width\], found \[2, 16\]"):
        TrainedTokens.from_vectors({"[moon]": torch.zeros(2, 16)})


def test_official_rows_and_back(encoder: TextEncoder, moon: TrainedTokens) -> None:
    new = {"[moon]": "circle|square"}
    torch.nn.init.normal_(moon.vector("[moon]"))
    size = encoder.token_table.num_embeddings
    rows = moon.rows(encoder, new)
    assert list(rows) == [size]
    rows[encoder.tokenizer("red").input_ids[1]] = torch.ones(16)
    again = TrainedTokens.from_rows(encoder, rows, new)
    torch.testing.assert_close(again.vector("[moon]"), moon.vector("[moon]"))
    torch.testing.assert_close(again.vector("red")[0], row(encoder, "red") + 1)
    with pytest.raises(ValueError, match=f"token {size} .* is not a word of its own"):
        TrainedTokens.from_rows(encoder, rows)


def test_a_saved_encoder_has_no_added_tokens(
    encoder: TextEncoder, moon: TrainedTokens, tmp_path: Path
) -> None:
    before = encoder(CAPTIONS)
    moon.attach(encoder)
    trained = encoder(CAPTIONS)
    encoder.save(tmp_path / "encoder")
    assert same(TextEncoder(source=str(tmp_path / "encoder"))(CAPTIONS), before)
    assert same(encoder(CAPTIONS), trained)


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        ({"[moon]": None}, r"'\[moon\]' is not one token .* give a pattern"),
        ({"[moon]": "hexagon"}, "no token matches the pattern 'hexagon'"),
        ({"[moon]": "("}, r"'\(' is not a regular expression"),
        ({"": "red"}, "'' cannot be a token's name"),
        ({"a.b": "red"}, "'a.b' cannot be a token's name"),
    ],
)
def test_tokens_that_cannot_be(encoder: TextEncoder, tokens: dict[str, str | None], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainedTokens.create(encoder, tokens)


def test_an_encoder_of_another_width_is_refused_and_stays_as_it_was(moon: TrainedTokens) -> None:
    wider = TextEncoder(config={**SIZES, "hidden_size": 32}, words=WORDS, max_length=12)
    with pytest.raises(ValueError, match="expected a table of width 16, found 32"):
        moon.attach(wider)
    assert not wider.added_ids
