"""From what a config names as shards to the list of shards: files, folders, globs, braces, URLs, lists."""

import glob
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

import fsspec

# What users install for a protocol that fsspec knows but brings no code for.
PIP_NAMES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs"}


COMMAND = "pipe:"
"""What the address of a command begins with; its output is the shard."""
MAX_BESIDE_BYTES = 1 << 26
"""Of what lies beside shards and is read whole; parsed, it takes up some twenty times that."""
MAX_OPTIONS = 1_000_000
"""Of a pair of braces."""


def expand(shards: str | Sequence[str], key: str = "data.shards", allow_commands: bool = False) -> list[str]:
    """The paths and URLs of all shards, in the order named, sorted within a folder or glob, none twice.

    key: of the config that names them, for messages.

    An entry is a local file, folder or glob, an http(s)://, s3:// or other fsspec URL of a shard or folder,
    or with allow_commands a pipe:COMMAND whose output is a shard; any of them with braces: {a,b}/*.tar,
    part-{000..123}.tar. A remote folder is read from its index.json (which `pack` writes) or, without one, by
    listing it.
    Raises FileNotFoundError when an entry matches nothing or only local files that do not exist, ValueError
    for an entry that cannot be read as one of these.
    """
    found: dict[str, None] = {}
    try:
        for entry in [shards] if isinstance(shards, str) else shards:
            if entry.startswith(COMMAND) and not allow_commands:
                raise ValueError(f"{entry}: commands are run with data.allow_commands=true only")
            found.update(dict.fromkeys(_expand_entry(entry)))
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{key}: {error}") from error
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from error
    if not found:
        raise ValueError(f"{key}: empty; name a folder of shards, a .tar file, a glob or a URL")
    return list(found)


def is_remote(name: str) -> bool:
    """Whether the name is a URL or a command rather than a path of this machine."""
    return "://" in name or name.startswith(COMMAND)


def expand_braces(text: str) -> list[str]:
    """The texts that {a,b} and {008..012} stand for, as in a shell; other braces stay as they are."""
    return list(dict.fromkeys(_each_of_braces(text)))


def _each_of_braces(text: str) -> Iterator[str]:
    """Innermost braces first; nested ones yield some texts more than once."""
    match = re.search(r"\{(\d+\.\.\d+|[^{}]*,[^{}]*)\}", text)
    if match is None:
        yield text
        return
    numbers = re.fullmatch(r"(\d+)\.\.(\d+)", match[1])
    if numbers:
        first, last = numbers.groups()
        if int(last) - int(first) >= MAX_OPTIONS:
            raise ValueError(f"{match[0]}: stands for more than {MAX_OPTIONS} names")
        options = [str(n).zfill(len(first)) for n in range(int(first), int(last) + 1)]
    else:
        options = match[1].split(",")
    for option in options:
        yield from _each_of_braces(text[: match.start()] + option + text[match.end() :])


def _expand_entry(entry: str) -> list[str]:
    """The shards that one entry stands for, of which one local file at least is there."""
    names = [name for text in expand_braces(entry) for name in _expand_one(text)]
    if not any(is_remote(name) or Path(name).is_file() for name in names):
        inside = sorted({file.parent for file in Path(entry).expanduser().glob("*/*.tar")})
        advice = "make some with: python -m dataset_tools pack PHOTOS FOLDER"
        if inside:
            advice = f"did you mean {' or '.join(map(str, inside[:3]))}?"
        raise FileNotFoundError(f"no .tar at {entry}; {advice}")
    return names


def _expand_one(name: str) -> list[str]:
    """The shards that one entry without braces stands for; a file is not looked for here."""
    if name.startswith(COMMAND):
        return [name]
    name = name.removeprefix("file://")
    if is_remote(name):
        return _expand_remote(name)
    path = Path(name).expanduser()
    if path.is_dir():
        return sorted(str(file) for file in path.glob("*.tar"))
    if not path.exists() and glob.has_magic(str(path)):
        return sorted(glob.glob(str(path), recursive=True))
    return [str(path)]


def _expand_remote(url: str) -> list[str]:
    """The same for a URL. Raises FileNotFoundError when a folder cannot be listed."""
    file_system, path = connect(url)
    if urlsplit(url).path.endswith(".tar") and "*" not in url:
        return [url]
    try:
        if "*" in url:
            found = file_system.glob(path)
        elif names := _names_in_index(file_system, f"{path.rstrip('/')}/index.json"):
            found = [f"{path.rstrip('/')}/{name}" for name in names]
        else:
            found = [name for name in file_system.ls(path, detail=False) if name.endswith(".tar")]
    except Exception as error:  # every file system of fsspec has its own errors
        raise FileNotFoundError(f"cannot list {url}: {one_line(error)}") from error
    return sorted(file_system.unstrip_protocol(name) for name in found)


def _names_in_index(file_system: Any, index: str) -> list[str]:
    """The shards that a remote index.json names; none without one, or when it is too long to be read.

    Raises ValueError for one that names something else than shards beside it.
    """
    if not file_system.exists(index):
        return []
    with file_system.open(index, "rb") as file:
        data = read_some(file)
    if len(data) > MAX_BESIDE_BYTES:
        return []
    names = [shard["name"] for shard in json.loads(data)["shards"]]
    for name in names:
        if not isinstance(name, str) or not re.fullmatch(r"[^/\\:\0-\x1f]+\.tar", name):
            raise ValueError(f"index.json: expected names of shards beside it, found {name!r:.100}")
    return names


def read_some(file: IO[bytes]) -> bytes:
    """The content of a file; of a longer one, a byte more than MAX_BESIDE_BYTES."""
    return file.read(MAX_BESIDE_BYTES + 1)


def connect(url: str) -> tuple[Any, str]:
    """The fsspec file system of a URL and the path in it. Raises ValueError for one that needs a package."""
    protocol = url.partition("://")[0]
    try:
        return fsspec.core.url_to_fs(url, **_options(protocol))
    except ImportError as error:
        package = PIP_NAMES.get(protocol)
        advice = f"pip install {package}" if package else one_line(error)
        raise ValueError(f"{url}: reading {protocol}:// needs a package: {advice}") from error
    except ValueError as error:
        raise ValueError(f"{url}: {one_line(error)}") from error


def _options(protocol: str) -> dict[str, Any]:
    """For http, limits on silence instead of fsspec's five minutes in all, too few for a large shard."""
    if protocol not in ("http", "https"):
        return {}
    from aiohttp import ClientTimeout  # with fsspec[http]; slow to import, and only needed here

    return {"client_kwargs": {"timeout": ClientTimeout(total=None, sock_connect=30, sock_read=60)}}


def one_line(error: BaseException) -> str:
    """The text of an error as one line, never empty."""
    return " ".join(str(error).split()) or type(error).__name__
