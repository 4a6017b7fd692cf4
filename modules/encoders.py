"""The CLIP encoders of text and pictures, from a hub name, a local folder, or a small random config."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
import transformers  # what it offers is loaded where it is used: settings are checked without its networks
from torch import Tensor, nn

from modules.conditions import TextFeatures
from modules.encoder_folders import read_encoder
from modules.limits import check_sizes
from modules.pictures import middle_square
from modules.schema import nearest
from modules.tokenizer import make_tokenizer, token_id, with_tokens
from modules.weights.folders import encoder_folder, tokenizer_folder
from modules.whole_files import settle

transformers.utils.logging.disable_progress_bar()  # one bar per run is enough, and it is not this one

# A fresh CLIP's token embeddings (deviation 0.02) drown in what its random attention adds: of the variance of
# its hidden states 42 % come from the token itself, with this factor 96 %.
WORD_GAIN = 50.0
# A fresh CLIP's position embeddings drown in those of the patches: a resampler that learnt to read its
# patches in 500 steps told a shape's place in 25 % of the demo's pictures, with this factor in all.
POSITION_GAIN = 10.0
READ_WRITE = 0o666  # of a file's rights
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


class TextEncoder(nn.Module):
    """Captions -> features, all padded to one length.

    source: a hub name or a local folder; or config: keywords of CLIPTextConfig for a small random encoder,
    whose tokenizer knows each of `words` as one token and spells everything else.
    max_length: the most tokens of a caption, start and end included. seed: of the random weights. dtype: in
    which weights of a source are read, so that they never exist in another; None: the file's.
    ValueError for settings that contradict each other, FileNotFoundError for a source that is not there.
    """

    def __init__(
        self,
        source: str | None = None,
        config: Mapping[str, Any] | None = None,
        words: Sequence[str] = (),
        max_length: int = 77,
        seed: int = 0,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_origin("text_encoder", source, config)
        if source is not None:
            source = str(encoder_folder(source, "text_encoder") or source)
            self.model = load(transformers.CLIPTextModelWithProjection, source, "text_encoder", dtype)
            self.tokenizer = load(
                transformers.CLIPTokenizer, str(tokenizer_folder(source) or source), "text_encoder"
            )
        else:
            self.tokenizer = make_tokenizer(words)
            ids = {
                "vocab_size": len(self.tokenizer),
                "bos_token_id": self.tokenizer.bos_token_id,
                "eos_token_id": self.tokenizer.eos_token_id,
                "pad_token_id": self.tokenizer.pad_token_id,
                "max_position_embeddings": max_length,
            }
            settings = make_config(transformers.CLIPTextConfig, {**(config or {}), **ids}, "text_encoder")
            self.model = random_model(transformers.CLIPTextModelWithProjection, settings, seed)
            with torch.no_grad():
                self.model.get_input_embeddings().weight.mul_(WORD_GAIN)
        positions = self.model.config.max_position_embeddings
        self.max_length = min(max_length, positions, self.tokenizer.model_max_length)
        self.tokenizer.model_max_length = self.max_length
        # Early configs of CLIP name a wrong end token; the pooled state is then taken where the largest id
        # stands, which would be that of an added token.
        self.model.text_model.eos_token_id = self.tokenizer.eos_token_id
        self._own_tokenizer = self.tokenizer
        self._added: list[str] = []
        self.added_ids: dict[str, int] = {}

    def forward(self, captions: list[str]) -> TextFeatures:
        """Any number of captions, the empty one included; longer ones than max_length are cut."""
        batch = self.tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt")
        result = self.model(**batch.to(self.model.device), output_hidden_states=True)
        return TextFeatures(result.hidden_states[-1], result.text_embeds[:, None])

    def shard_units(self) -> list[nn.Module]:
        """The layers, as of `modules.network.Network`."""
        return list(self.model.text_model.encoder.layers)

    @property
    def token_table(self) -> nn.Embedding:
        """The embeddings of the tokens; those added last."""
        return self.model.get_input_embeddings()

    def add_tokens(self, texts: Sequence[str]) -> None:
        """From now on each text is one token, with a row of zeros in the table where it was none before.

        `added_ids` has their ids, which may change when others are removed. ValueError, with nothing changed,
        for a text that cannot be a token.
        """
        self._use_tokens([*self._added, *texts])

    def remove_tokens(self, texts: Sequence[str]) -> None:
        """Take back one `add_tokens` of these texts."""
        left = list(self._added)
        for text in texts:
            left.remove(text)
        self._use_tokens(left)

    @torch.inference_mode(False)  # the table stays one whose numbers can be exchanged later
    @torch.no_grad()
    def _use_tokens(self, texts: list[str]) -> None:
        self.tokenizer = with_tokens(self._own_tokenizer, texts)
        self._added = texts
        self.added_ids = {text: cast(int, token_id(self.tokenizer, text)) for text in texts}
        table, num_own = self.token_table, self.model.config.vocab_size
        num_rows = max(num_own, len(self.tokenizer))
        if num_rows != table.num_embeddings:
            rows = table.weight.new_zeros(num_rows, table.embedding_dim)
            rows[:num_own] = table.weight[:num_own]
            table.weight = nn.Parameter(rows, requires_grad=table.weight.requires_grad)
            table.num_embeddings = num_rows

    def save(self, folder: str | Path) -> None:
        """Write a folder that `TextEncoder(source=folder)` reads back exactly, without added tokens."""
        added = self._added
        self._use_tokens([])
        save_whole(folder, self.model, self.tokenizer)
        self._use_tokens(added)


class ImageEncoder(nn.Module):
    """Pictures -> embeddings.

    forward_methods: as of `modules.network.Network`.

    source: a hub name or a local folder; or config: keywords of CLIPVisionConfig for a small random encoder,
    with weights drawn from `seed`. dtype and errors as TextEncoder's.
    """

    forward_methods = ("patches",)

    def __init__(
        self,
        source: str | None = None,
        config: Mapping[str, Any] | None = None,
        seed: int = 0,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_origin("image_encoder", source, config)
        if source is not None:
            source = str(encoder_folder(source, "image_encoder") or source)
            self.model = load(transformers.CLIPVisionModelWithProjection, source, "image_encoder", dtype)
        else:
            settings = make_config(transformers.CLIPVisionConfig, config or {}, "image_encoder")
            self.model = random_model(transformers.CLIPVisionModelWithProjection, settings, seed)
            with torch.no_grad():
                self.model.vision_model.embeddings.position_embedding.weight.mul_(POSITION_GAIN)

    def forward(self, images: Tensor) -> Tensor:
        """Pictures [B, 3, H, W] in [0, 1] -> projected pooled embeddings [B, 1, P]."""
        return self.model(pixel_values=self._pixels(images)).image_embeds[:, None]

    def shard_units(self) -> list[nn.Module]:
        """The layers, as of `modules.network.Network`."""
        return list(self.model.vision_model.encoder.layers)

    def patches(self, images: Tensor) -> Tensor:
        """Pictures [B, 3, H, W] in [0, 1] -> hidden states [B, 1 + patches, D], the class token's first.

        From before the last layer, which gathers into the class token what the pooled embedding needs.
        """
        result = self.model(pixel_values=self._pixels(images), output_hidden_states=True)
        return result.hidden_states[-2]

    def features(self, images: Tensor, kind: str) -> Tensor:
        """The `pooled` embeddings or the `patches`."""
        return self.patches(images) if kind == "patches" else self(images)

    def _pixels(self, images: Tensor) -> Tensor:
        """The middle square of the pictures, their shorter side resized to the encoder's input size."""
        middle = middle_square(images, self.model.config.image_size)
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


def load(kind: type[Any], source: str, name: str, dtype: torch.dtype | None = None) -> Any:
    """Read a model or tokenizer from a folder or the hub; FileNotFoundError says how to get it.

    dtype: of a model's weights; None: the file's. ValueError for a folder that holds no such thing, or things
    that no such model consists of.
    """
    if Path(source).is_dir():
        return read_folder(kind, Path(source), name, dtype)
    if Path(source).is_file():
        raise ValueError(f"{name}.source: expected a folder with a CLIP model, found the file {source}")
    try:
        return kind.from_pretrained(source, **({} if dtype is None else {"dtype": dtype}))
    except (OSError, ValueError) as error:
        raise FileNotFoundError(
            f"{name}.source: {source!r} is neither a local folder with a CLIP model nor to be had from the "
            f"hub here; download it where there is a network (`hf download {source} --local-dir FOLDER`) and "
            f"name that folder ({str(error).splitlines()[0]})"
        ) from error


def read_folder(kind: type[Any], folder: Path, name: str, dtype: torch.dtype | None = None) -> Any:
    """The same for a local folder, from which nothing else is reached."""
    try:
        if kind is transformers.CLIPTokenizer:
            return kind.from_pretrained(folder, local_files_only=True)
        return read_encoder(kind, folder, dtype)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # transformers and tokenizers raise all kinds for files that are damaged
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ValueError(f"{name}.source: {folder} holds no {kind.__name__} ({reason})") from error


def cached_folder(name: str) -> Path:
    """The copy of a hub's model that is here already; FileNotFoundError says how to get one."""
    try:
        found = transformers.utils.cached_file(name, "config.json", local_files_only=True)
    except (OSError, ValueError) as error:
        raise FileNotFoundError(
            f"a file names the encoder {name!r}, which is not here; it is fetched when you name it "
            f"(weights.text_encoder={name}, weights.image_encoder=…) or by `hf download {name}`"
        ) from error
    assert found is not None  # it would have raised
    return Path(found).parent


def check_config(name: str, config: Mapping[str, Any] | None) -> None:
    """Raise ValueError for keywords of an encoder's config that cannot be; None: its weights tell."""
    kinds = {"text_encoder": transformers.CLIPTextConfig, "image_encoder": transformers.CLIPVisionConfig}
    if config is not None:
        make_config(kinds[name.rpartition(".")[2]], config, name)


def make_config(
    kind: type[transformers.PreTrainedConfig], keywords: Mapping[str, Any], name: str
) -> transformers.PreTrainedConfig:
    """The config of a random encoder; ValueError for keywords that it does not have."""
    known = kind().to_dict()
    unknown = [key for key in keywords if key not in known]
    if unknown:
        raise ValueError(
            f"{name}.config: {kind.__name__} has no {unknown[0]!r}; {nearest(unknown[0], known)}"
        )
    check_sizes(keywords, f"{name}.config: ")
    try:
        return kind(**keywords)
    except Exception as error:  # a kind of its own for each way in which a value can be wrong
        reason = " ".join(str(error).split())
        raise ValueError(f"{name}.config: no {kind.__name__} can be made of it ({reason})") from error


def random_model(
    kind: type[Any], config: transformers.PreTrainedConfig, seed: int
) -> transformers.PreTrainedModel:
    """A model with weights drawn from `seed`, leaving torch's own generator as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed GPUs' generators too
        return kind(config).eval()


def save_whole(folder: str | Path, *parts: Any) -> None:
    """Write the parts into a folder that appears only when it is complete."""
    folder = Path(folder)
    unfinished = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(unfinished, ignore_errors=True)
    for part in parts:
        part.save_pretrained(unfinished)
    for path in unfinished.iterdir():
        path.chmod(unfinished.stat().st_mode & READ_WRITE)  # safetensors writes for its owner alone
        with path.open("ab") as file:
            settle(file)
    shutil.rmtree(folder, ignore_errors=True)
    unfinished.replace(folder)
