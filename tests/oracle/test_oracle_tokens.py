"""Trained tokens against the published re-training of a token table."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from modules.adapters.tokens import TrainedTokens
from tests.oracle.network_cases import files, fill, metadata

pytestmark = pytest.mark.oracle


def is_retoken(facts: dict[str, str]) -> bool:
    return "vocab" in facts


@pytest.mark.parametrize("path", list(files(is_retoken)), ids=lambda path: path.stem)
def test_trained_tokens(path: Path) -> None:
    facts, tensors = metadata(path), load_file(path)
    rows: dict[int, Any] = dict(
        zip(tensors["lora.embeddings.indices"].tolist(), tensors["lora.embeddings.embeddings"], strict=True)
    )
    width = tensors["lora.embeddings.embeddings"].shape[1]
    table = fill("token_embedding.weight", (int(facts["vocab"]), width), int(facts["fill_seed"]))
    embedded = table[tensors["in.ids"]]
    assert torch.equal(embedded, tensors["out.embedded_disabled"])
    tokens = TrainedTokens.from_vectors(
        {f"row {row}": table[row][None] + change for row, change in rows.items()}
    )
    found = tokens(tensors["in.ids"], embedded, list(rows))
    torch.testing.assert_close(found, tensors["out.embedded"], atol=0, rtol=0)
