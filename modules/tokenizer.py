"""CLIP's tokenizer: small ones that know given words, and tokens that are added to any."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from typing import Any

import transformers
from tokenizers import AddedToken, pre_tokenizers

START, END = "<|startoftext|>", "<|endoftext|>"
WORD_END = "</w>"  # ends the name of a token that ends a word


def make_tokenizer(words: Sequence[str]) -> transformers.CLIPTokenizer:
    """A byte-pair tokenizer in CLIP's manner in which each word is one token.

    ValueError for what CLIP splits before it looks at letters: several words, or letters beside digits.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    ranks: dict[tuple[str, str], int] = {}
    for word in words:
        # A new merge ranks after all others, so it cannot take apart a word that is already one token.
        while len(parts := merge(word_symbols(word), ranks)) > 1:
            ranks[parts[0], parts[1]] = len(ranks)
    merged = ["".join(pair) for pair in ranks]
    tokens = [*alphabet, *(symbol + WORD_END for symbol in alphabet), *merged, START, END]
    vocabulary = {token: number for number, token in enumerate(dict.fromkeys(tokens))}
    pairs: Any = list(ranks)  # taken as pairs, though declared as lines of text
    tokenizer = transformers.CLIPTokenizer(vocab=vocabulary, merges=pairs)
    for word in words:
        if len(tokenizer(word).input_ids) != 3:
            raise ValueError(f"text_encoder.words: {word!r} is not one word to CLIP's tokenizer")
    return tokenizer


def word_symbols(word: str) -> list[str]:
    """A word's bytes as the letters of byte-level BPE, the last one marked as the word's end."""
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    symbols = list(level.pre_tokenize_str(word.lower())[0][0]) if word else []
    return [*symbols[:-1], *(symbol + WORD_END for symbol in symbols[-1:])]


def merge(symbols: list[str], ranks: Mapping[tuple[str, str], int]) -> list[str]:
    """Join neighbours, the pair of the lowest rank first, until no pair is known (Sennrich et al. 2016)."""
    while len(symbols) > 1:
        best = min(zip(symbols, symbols[1:], strict=False), key=lambda pair: ranks.get(pair, len(ranks)))
        if best not in ranks:
            break
        joined: list[str] = []
        for symbol in symbols:
            if joined and (joined[-1], symbol) == best:
                joined[-1] += symbol
            else:
                joined.append(symbol)
        symbols = joined
    return symbols


def token_id(tokenizer: transformers.CLIPTokenizer, text: str) -> int | None:
    """The id of a text that is one token; None for other texts."""
    ids = tokenizer(text, add_special_tokens=False).input_ids
    return ids[0] if len(ids) == 1 else None


def word_of(tokenizer: transformers.CLIPTokenizer, number: int) -> str:
    """The text of a token that is a whole word; ValueError for other tokens."""
    token = str(tokenizer.convert_ids_to_tokens(number))
    word = token.removesuffix(WORD_END)
    if token_id(tokenizer, word) != number:
        raise ValueError(f"text_encoder: token {number} ({token!r}) is not a word of its own")
    return word


def words_like(tokenizer: transformers.CLIPTokenizer, pattern: str) -> list[int]:
    """Ids of the tokens that end a word and that a regular expression matches as a whole.

    ValueError when there is none, or the expression is none.
    """
    try:
        matching = re.compile(f"(?:{pattern}){WORD_END}")
    except re.error as error:
        raise ValueError(f"text_encoder: {pattern!r} is not a regular expression ({error})") from None
    ids = sorted(number for token, number in tokenizer.get_vocab().items() if matching.fullmatch(token))
    if not ids:
        raise ValueError(f"text_encoder: no token matches the pattern {pattern!r}")
    return ids


def with_tokens(tokenizer: transformers.CLIPTokenizer, texts: Sequence[str]) -> transformers.CLIPTokenizer:
    """The tokenizer itself, or, where a text is not one token to it yet, a copy to which each is.

    ValueError for a text that cannot be a token.
    """
    grown = tokenizer
    for text in texts:
        if token_id(grown, text) is None:
            grown = copy.deepcopy(tokenizer) if grown is tokenizer else grown
            grown.add_tokens(AddedToken(text, single_word=True, normalized=True))
            if token_id(grown, text) is None:
                raise ValueError(f"text_encoder: {text!r} cannot be a token")
    return grown
