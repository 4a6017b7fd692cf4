"""The CLIP encoders of text and pictures, from a hub name, a local folder, or a small random config."""

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from tokenizers import pre_tokenizers
from torch import Tensor, nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.utils.logging import disable_progress_bar

from modules.conditions import TextFeatures

disable_progress_bar()  # one bar per run is enough, and it is not this one

START, END = "<|startoftext|>", "<|endoftext|>"
# A fresh CLIP's token embeddings (deviation 0.02) drown in what its random attention adds: of the variance of
# its hidden states 42 % come from the token itself, with this factor 96 %.
WORD_GAIN = 50.0
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


class TextEncoder(nn.Module):
    """Captions -> features, all padded to one length.

    source: a hub name or a local folder; or config: keywords of CLIPTextConfig for a small random encoder,
    whose tokenizer knows each of `words` as one token and spells everything else.
    max_length: the most tokens of a caption, start and end included. seed: of the random weights.
    ValueError for settings that contradict each other, FileNotFoundError for a source that is not there.
    """

    def __init__(
        self,
        source: str | None = None,
        config: Mapping[str, Any] | None = None,
        words: Sequence[str] = (),
        max_length: int = 77,
        seed: int = 0,
    ) -> None:
        super().__init__()
        check_origin("text_encoder", source, config)
        if source is not None:
            self.model = load(CLIPTextModelWithProjection, source, "text_encoder")
            self.tokenizer = load(CLIPTokenizer, source, "text_encoder")
        else:
            self.tokenizer = make_tokenizer(words)
            ids = {
                "vocab_size": len(self.tokenizer),
                "bos_token_id": self.tokenizer.bos_token_id,
                "eos_token_id": self.tokenizer.eos_token_id,
                "pad_token_id": self.tokenizer.pad_token_id,
                "max_position_embeddings": max_length,
            }
            settings = make_config(CLIPTextConfig, {**(config or {}), **ids}, "text_encoder")
            self.model = random_model(CLIPTextModelWithProjection, settings, seed)
            with torch.no_grad():
                self.model.get_input_embeddings().weight.mul_(WORD_GAIN)
        positions = self.model.config.max_position_embeddings
        self.max_length = min(max_length, positions, self.tokenizer.model_max_length)
        self.tokenizer.model_max_length = self.max_length

    def forward(self, captions: list[str]) -> TextFeatures:
        """Any number of captions, the empty one included; longer ones than max_length are cut."""
        batch = self.tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt")
        result = self.model(**batch.to(self.model.device), output_hidden_states=True)
        return TextFeatures(result.hidden_states[-1], result.text_embeds[:, None])

    def save(self, folder: str | Path) -> None:
        """Write a folder that `TextEncoder(source=folder)` reads back exactly."""
        save_whole(folder, self.model, self.tokenizer)


class ImageEncoder(nn.Module):
    """Pictures -> embeddings.

    source: a hub name or a local folder; or config: keywords of CLIPVisionConfig for a small random encoder,
    with weights drawn from `seed`. Errors as TextEncoder's.
    """

    def __init__(
        self, source: str | None = None, config: Mapping[str, Any] | None = None, seed: int = 0
    ) -> None:
        super().__init__()
        check_origin("image_encoder", source, config)
        if source is not None:
            self.model = load(CLIPVisionModelWithProjection, source, "image_encoder")
        else:
            settings = make_config(CLIPVisionConfig, config or {}, "image_encoder")
            self.model = random_model(CLIPVisionModelWithProjection, settings, seed)

    def forward(self, images: Tensor) -> Tensor:
        """Pictures [B, 3, H, W] in [0, 1] -> projected pooled embeddings [B, 1, P]."""
        return self.model(pixel_values=self._pixels(images)).image_embeds[:, None]

    def patches(self, images: Tensor) -> Tensor:
        """Pictures [B, 3, H, W] in [0, 1] -> hidden states [B, 1 + patches, D], the class token's first.

        From before the last layer, which gathers into the class token what the pooled embedding needs.
        """
        result = self.model(pixel_values=self._pixels(images), output_hidden_states=True)
        return result.hidden_states[-2]

    def _pixels(self, images: Tensor) -> Tensor:
        """The middle square of the pictures, their shorter side resized to the encoder's input size."""
        side = self.model.config.image_size
        height, width = images.shape[-2:]
        scaled = [round(size * side / min(height, width)) for size in (height, width)]
        images = F.interpolate(images.float(), scaled, mode="bicubic", antialias=True).clamp(0, 1)
        top, left = ((size - side) // 2 for size in scaled)
        middle = images[..., top : top + side, left : left + side]
        mean = middle.new_tensor(CLIP_MEAN)[:, None, None]
        std = middle.new_tensor(CLIP_STD)[:, None, None]
        return ((middle - mean) / std).to(self.model.device, self.model.dtype)

    def save(self, folder: str | Path) -> None:
        """Write a folder that `ImageEncoder(source=folder)` reads back exactly."""
        save_whole(folder, self.model)


def check_origin(name: str, source: str | None, config: Mapping[str, Any] | None) -> None:
    """Raise ValueError unless exactly one of the two is given."""
    if (source is None) == (config is None):
        raise ValueError(f"{name}: set either source (hub name or local folder) or config (a random encoder)")


def load(kind: type[Any], source: str, name: str) -> Any:
    """Read a model or tokenizer from a folder or the hub; FileNotFoundError says how to get it."""
    try:
        return kind.from_pretrained(source)
    except (OSError, ValueError) as error:
        raise FileNotFoundError(
            f"{name}.source: {source!r} is neither a local folder with a CLIP model nor to be had from the "
            f"hub here; download it where there is a network (`hf download {source} --local-dir FOLDER`) and "
            f"name that folder ({str(error).splitlines()[0]})"
        ) from error


def make_config(kind: type[PreTrainedConfig], keywords: Mapping[str, Any], name: str) -> PreTrainedConfig:
    """The config of a random encoder; ValueError for keywords that it does not have."""
    known = kind().to_dict()
    unknown = [key for key in keywords if key not in known]
    if unknown:
        raise ValueError(f"{name}.config: {kind.__name__} has no {unknown[0]!r}")
    return kind(**keywords)


def random_model(kind: type[Any], config: PreTrainedConfig, seed: int) -> PreTrainedModel:
    """A model with weights drawn from `seed`, leaving torch's own generator as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return kind(config).eval()


def save_whole(folder: str | Path, *parts: Any) -> None:
    """Write the parts into a folder that appears only when it is complete."""
    folder = Path(folder)
    unfinished = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(unfinished, ignore_errors=True)
    for part in parts:
        part.save_pretrained(unfinished)
    shutil.rmtree(folder, ignore_errors=True)
    unfinished.replace(folder)


def make_tokenizer(words: Sequence[str]) -> CLIPTokenizer:
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
    tokens = [*alphabet, *(symbol + "</w>" for symbol in alphabet), *merged, START, END]
    vocabulary = {token: number for number, token in enumerate(dict.fromkeys(tokens))}
    pairs: Any = list(ranks)  # taken as pairs, though declared as lines of text
    tokenizer = CLIPTokenizer(vocab=vocabulary, merges=pairs)
    for word in words:
        if len(tokenizer(word).input_ids) != 3:
            raise ValueError(f"text_encoder.words: {word!r} is not one word to CLIP's tokenizer")
    return tokenizer


def word_symbols(word: str) -> list[str]:
    """A word's bytes as the letters of byte-level BPE, the last one marked as the word's end."""
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    symbols = list(level.pre_tokenize_str(word.lower())[0][0]) if word else []
    return [*symbols[:-1], *(symbol + "</w>" for symbol in symbols[-1:])]


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
