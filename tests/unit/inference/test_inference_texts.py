"""What stages are told of prompts: each text is encoded once, and every request gets its own features."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from inference import Cascade, Request
from inference.texts import Texts


@pytest.fixture
def texts(tiny_runs: Path) -> Texts:
    """Of a cascade whose stages have one text encoder."""
    encoder = str(tiny_runs / "stage_c" / "text_encoder")
    cascade = Cascade.load(str(tiny_runs), device="cpu", text_encoder=encoder)
    return Texts(cascade.networks, cascade.stages.adapters.loras)


@pytest.fixture
def encoded(texts: Texts) -> Iterator[list[list[str]]]:
    """The texts of every call of the encoder."""
    calls: list[list[str]] = []

    def note(encoder: nn.Module, given: tuple[list[str]]) -> None:
        calls.append(list(given[0]))

    encoder = texts.networks.peek_encoder("text_encoder", "stage_c")
    with encoder.register_forward_pre_hook(note):
        yield calls


def requests(*prompts: str, negative: str = "", **settings: object) -> list[Request]:
    return [Request(prompt=prompt, negative_prompt=negative, **settings) for prompt in prompts]  # type: ignore


@torch.no_grad()
def test_every_request_is_told_of_its_own_texts(texts: Texts) -> None:
    batch = [*requests("a red circle", "blue"), *requests("blue", "square", negative="red")]
    prompts, negatives = texts.of("stage_c", batch)
    encoder = texts.networks.peek_encoder("text_encoder", "stage_c")
    for row, request in enumerate(batch):
        for found, text in ((prompts, request.prompt), (negatives, request.negative_prompt)):
            expected = encoder([text])
            torch.testing.assert_close(found.tokens[row], expected.tokens[0], atol=1e-5, rtol=1e-4)
            torch.testing.assert_close(found.pooled[row], expected.pooled[0], atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_stages_with_one_encoder_have_it_encode_each_text_once(
    texts: Texts, encoded: list[list[str]]
) -> None:
    batch = requests("a red circle", "", "a red circle")
    first = texts.of("stage_c", batch)
    assert encoded == [["a red circle", ""]]
    again = texts.of("stage_b", batch)
    assert len(encoded) == 1
    assert all(
        torch.equal(*pair) for half in zip(first, again, strict=True) for pair in zip(*half, strict=True)
    )
    texts.of("stage_c", requests("blue"))
    texts.of("stage_c", batch)
    assert len(encoded) == 3


@torch.no_grad()
def test_a_stage_with_loras_is_told_what_they_make_of_the_texts(
    texts: Texts, encoded: list[list[str]], adapters: Path
) -> None:
    plain, _ = texts.of("stage_c", requests("circle"))
    led = requests("circle", loras=({"weights": str(adapters / "lora_text")},))
    found, _ = texts.of("stage_c", led)
    texts.of("stage_b", led)
    assert len(encoded) == 3
    assert not torch.allclose(found.tokens, plain.tokens, atol=1e-3)
