"""Tokens that are trained: new words, or better meanings of known ones (Gal et al. 2022)."""

from collections.abc import Mapping, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from modules.encoders import TextEncoder
from modules.network import Network
from modules.tokenizer import token_id, word_of, words_like


class TokenVector(nn.Module):
    """The vector of one token; no decay is to pull it towards zero."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.clip_g = nn.Parameter(torch.zeros(1, width, dtype=torch.float32))


class TrainedTokens(Network):
    """Vectors, in float32, that take the place of a text encoder's own (or give it words that it lacks).

    tokens: the texts, each of which is one token. width: of the encoder's token table. The state's names are
    <text>.clip_g, as ComfyUI reads them.
    """

    def __init__(self, tokens: Sequence[str], width: int) -> None:
        super().__init__()
        self.config = {"tokens": list(tokens), "width": width}
        self._attached: list[tuple[TextEncoder, RemovableHandle]] = []
        for text in tokens:
            if not text or "." in text or not text.isprintable():
                raise ValueError(
                    f"tokens: {text!r} cannot be a token's name (empty, with a full stop, or not printable)"
                )
            # Not by add_module, which refuses words that are also the name of some method ("train").
            self._modules[text] = TokenVector(width)

    @classmethod
    def create(cls, encoder: TextEncoder, tokens: Mapping[str, str | None]) -> "TrainedTokens":
        """Vectors to train, on the encoder's device.

        tokens: text -> a regular expression; its vector starts as the mean of those of the words that the
        expression matches as a whole. None: the text is one token already and starts as it is. ValueError
        for other texts with None, and for expressions that match nothing.
        """
        table = encoder.token_table
        with table.weight.device:
            made = cls(list(tokens), table.embedding_dim)
        with torch.no_grad():
            for text, pattern in tokens.items():
                made.vector(text).copy_(table.weight[_starts(encoder, text, pattern)].float().mean(0))
        return made

    @classmethod
    def from_vectors(cls, vectors: Mapping[str, Tensor]) -> "TrainedTokens":
        """From vectors [1, width] by text, as a file has them; ValueError for other shapes."""
        widths = {vector.shape[-1] for vector in vectors.values()}
        for text, vector in vectors.items():
            if vector.ndim != 2 or len(vector) != 1 or len(widths) != 1:
                raise ValueError(
                    f"tokens: {text}: expected one vector [1, width], found {list(vector.shape)}"
                )
        made = cls(list(vectors), widths.pop() if widths else 0)
        made.load_state_dict({f"{text}.clip_g": vector for text, vector in vectors.items()})
        return made

    @classmethod
    def from_rows(
        cls, encoder: TextEncoder, rows: Mapping[int, Tensor], new: Mapping[str, str | None] | None = None
    ) -> "TrainedTokens":
        """From an official LoRA file, which holds what is added to rows [width] of the token table, by row.

        new: the tokens that were added to the table in training, in that order, as in `create`; the file does
        not say their texts. ValueError for rows whose text is not known.
        """
        texts = _row_texts(encoder, new or {})
        names = {row: texts[row] if row in texts else word_of(encoder.tokenizer, row) for row in rows}
        made = cls.create(encoder, {text: (new or {}).get(text) for text in names.values()})
        with torch.no_grad():
            for row, text in names.items():
                made.vector(text).add_(rows[row])
        return made

    def rows(self, encoder: TextEncoder, new: Mapping[str, str | None] | None = None) -> dict[int, Tensor]:
        """What an official file holds of these tokens; the reverse of `from_rows`."""
        numbers = {text: row for row, text in _row_texts(encoder, new or {}).items()}
        starts = self.create(encoder, {text: (new or {}).get(text) for text in self.texts})
        rows = {}
        for text in self.texts:
            row = numbers.get(text, token_id(encoder.tokenizer, text))
            rows[cast(int, row)] = (self.vector(text) - starts.vector(text)).detach()[0]
        return rows

    @property
    def texts(self) -> list[str]:
        return list(self._modules)

    def vector(self, text: str) -> nn.Parameter:
        """The vector [1, width] of one of the texts."""
        return cast(TokenVector, self._modules[text]).clip_g

    def init_weights(self) -> None:
        for text in self.texts:
            nn.init.normal_(self.vector(text), std=0.02)

    def shard_units(self) -> list[nn.Module]:
        """None: the vectors are few."""
        return []

    def forward(self, ids: Tensor, embedded: Tensor, own_ids: Sequence[int]) -> Tensor:
        """Put the vectors in the place of the encoder's own.

        ids: [B, L]; embedded: [B, L, width], what the table has for them; own_ids: of the texts, in order.
        """
        found = ids[..., None] == torch.tensor(own_ids, device=ids.device)  # [B, L, number of texts]
        vectors = torch.cat([self.vector(text) for text in self.texts])
        trained = F.embedding(found.int().argmax(-1), vectors).to(embedded.dtype)
        return torch.where(found.any(-1, keepdim=True), trained, embedded)

    def attach(self, encoder: TextEncoder) -> None:
        """Let an encoder use the vectors from now on, and know the texts; also several encoders at once.

        Of two sets that have the same text, the one attached last counts. ValueError when the encoder has
        them already, or its table another width.
        """
        table = encoder.token_table
        if any(encoder is other for other, _ in self._attached):
            raise ValueError("tokens: already attached to this text encoder; detach them first")
        if self.texts and table.embedding_dim != self.config["width"]:
            raise ValueError(
                f"tokens: expected a table of width {self.config['width']}, found {table.embedding_dim}"
            )

        def replace(_: nn.Module, inputs: tuple[Tensor], embedded: Tensor) -> Tensor:
            return self(inputs[0], embedded, [encoder.added_ids[text] for text in self.texts])

        encoder.add_tokens(self.texts)
        self._attached.append((encoder, table.register_forward_hook(replace)))

    def detach(self) -> None:
        """Leave the encoders as they were before."""
        for encoder, handle in self._attached:
            handle.remove()
            encoder.remove_tokens(self.texts)
        self._attached.clear()


def _starts(encoder: TextEncoder, text: str, pattern: str | None) -> list[int]:
    """The rows of the token table whose mean a token begins with."""
    if pattern is not None:
        return words_like(encoder.tokenizer, pattern)
    known = token_id(encoder.tokenizer, text)
    if known is None:
        raise ValueError(
            f"tokens: {text!r} is not one token of the text encoder; give a pattern of the words whose mean "
            "it is to begin with"
        )
    return [known]


def _row_texts(encoder: TextEncoder, new: Mapping[str, str | None]) -> dict[int, str]:
    """The texts of rows that training had added behind the encoder's own."""
    return dict(enumerate(new, start=encoder.model.config.vocab_size))
