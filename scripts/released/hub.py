"""What a hub says of files: address, size and checksum; and its cache, where encoders are looked for."""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from huggingface_hub import HfApi, constants, get_hf_file_metadata, hf_hub_download, hf_hub_url
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.file_download import repo_folder_name

from scripts.released.fetch import FIRST_WAIT_S, PASSING, TRIES, FetchError, Remote, in_words
from scripts.released.sums import Sum, sum_named
from scripts.released.table import Released

T = TypeVar("T")
BESIDE_WEIGHTS = {
    "config.json",
    "preprocessor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "merges.txt",
    "special_tokens_map.json",
}
WEIGHTS = ("model.safetensors", "pytorch_model.bin")  # the first that is there, whole or in parts


@dataclass(frozen=True)
class Wanted:
    """A file to be had: where it is, where it goes, and what is said of it.

    in_cache: its name, for a file that goes into the hub's cache.
    """

    entry: Released
    remote: Remote
    target: Path
    in_cache: str | None = None

    @property
    def size(self) -> int:
        """In bytes; the table's where the server does not say."""
        return self.entry.size if self.remote.size is None else self.remote.size

    @property
    def label(self) -> str:
        """For people."""
        return f"{self.entry.place}: {self.in_cache}" if self.in_cache else self.entry.place


def wanted(entry: Released, revision: str | None = None) -> list[Wanted]:
    """The files of an entry, as the server describes them now. Raises FetchError."""
    if entry.repo is None:
        assert entry.url is not None and entry.sha256 is not None  # as the table says
        return [Wanted(entry, Remote(entry.url, None, Sum(entry.sha256)), Path(entry.place))]
    revision = revision or entry.revision
    if not entry.is_encoder:
        remote = described(entry.repo, entry.name, revision)
        return [Wanted(entry, remote, Path(entry.place))]
    blobs = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=entry.repo, repo_type="model") / "blobs"
    found = []
    for name in encoder_files(entry.repo, revision):
        remote = described(entry.repo, name, revision)
        found.append(Wanted(entry, remote, blobs / remote.sum.digits, name))
    return found


def described(repo: str, name: str, revision: str) -> Remote:
    """A file at the hub, at the commit that the revision is now. Raises FetchError."""
    url = hf_hub_url(repo, name, revision=revision, endpoint=endpoint())
    found = asked(url, lambda: get_hf_file_metadata(url, token=token(), endpoint=endpoint()))
    known = None if found.etag is None else sum_named(found.etag)
    if known is None:
        raise FetchError(f"{url}: the server names no checksum; is {endpoint()} a mirror of the hub?")
    at = hf_hub_url(repo, name, revision=found.commit_hash or revision, endpoint=endpoint())
    secret = token()
    return Remote(at, found.size, known, {"Authorization": f"Bearer {secret}"} if secret else {})


def encoder_files(repo: str, revision: str) -> list[str]:
    """Names of the files that an encoder is read from, those that transformers would choose."""
    api = HfApi(endpoint=endpoint(), token=token())
    url = f"{endpoint()}/{repo}"
    there = asked(url, lambda: api.list_repo_files(repo, revision=revision))
    weights = weight_files(there)
    if not weights:
        raise FetchError(f"{url}: holds none of {', '.join(WEIGHTS)}")
    return sorted(BESIDE_WEIGHTS & set(there)) + weights


def weight_files(there: Sequence[str]) -> list[str]:
    """Of a repository's files those with weights: one whole, or an index and its parts."""
    for name in WEIGHTS:
        if name in there:
            return [name]
        if f"{name}.index.json" in there:
            stem, _, ending = name.rpartition(".")
            parts = [file for file in there if file.startswith(f"{stem}-") and file.endswith(ending)]
            return [f"{name}.index.json", *sorted(parts)]
    return []


def into_cache(item: Wanted, revision: str | None) -> None:
    """Let the hub's library find a file, whose content lies in its cache now, by its name."""
    assert item.entry.repo is not None and item.in_cache is not None  # of an encoder
    repo, name, revision = item.entry.repo, item.in_cache, revision or item.entry.revision
    asked(
        item.remote.url,
        lambda: hf_hub_download(repo, name, revision=revision, endpoint=endpoint(), token=token()),
    )


def asked(url: str, question: Callable[[], T]) -> T:
    """The hub's answer, after some tries where it is busy. Raises FetchError."""
    for attempt in range(TRIES):
        try:
            return question()
        except HfHubHTTPError as error:
            problem = in_words(error.response.status_code, url)
            if error.response.status_code not in PASSING:
                break
        except Exception as error:  # of whichever client the hub's library speaks through
            problem = f"{url}: cannot be reached ({' '.join(str(error).split())})"
        if attempt < TRIES - 1:
            time.sleep(FIRST_WAIT_S * 2**attempt)
    raise FetchError(problem) from None


def endpoint() -> str:
    """The hub, or the mirror that HF_ENDPOINT names."""
    return os.environ.get("HF_ENDPOINT", constants._HF_DEFAULT_ENDPOINT).rstrip("/")


def token() -> str | Literal[False]:
    """HF_TOKEN, or False: no other token that may lie on this machine is sent anywhere."""
    return os.environ.get("HF_TOKEN") or False
