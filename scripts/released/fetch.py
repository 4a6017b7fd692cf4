"""Fetching a file over HTTP: gone on with after a stop, verified whole before it has its name.

The hub's own library is used for everything but the bytes: it begins anew after a stop, and trusts a size.
"""

import os
import time
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import BinaryIO
from urllib.error import HTTPError

from scripts.released.sums import AT_ONCE, Sum

TIMEOUT_S = 30.0  # without a byte
TRIES = 6  # in a row without a byte
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 30.0
PASSING = {408, 425, 429, 500, 502, 503, 504}  # statuses that may be others a moment later


class FetchError(Exception):
    """Why a file could not be had, in one line that says what to do."""


@dataclass(frozen=True)
class Remote:
    """A file at a server. size: in bytes, None where it does not say. headers: not for other servers."""

    url: str
    size: int | None
    sum: Sum
    headers: Mapping[str, str] = field(default_factory=dict)


def fetch(
    remote: Remote,
    target: Path,
    on_bytes: Callable[[int], None] = lambda count: None,
    wait: Callable[[float], None] = time.sleep,
) -> None:
    """Fetch a file to `target`, which does not exist; what is there of it already is not fetched again.

    on_bytes: is told how many bytes there are more, those of an earlier try included; below zero where these
    turn out to be worthless. Raises FetchError.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    part = part_of(remote, target)
    on_bytes(size_of(part))
    failures = 0
    while True:
        before = size_of(part)
        try:
            _go_on(remote, part, on_bytes)
            break
        except HTTPError as error:
            if error.code not in PASSING:
                raise FetchError(in_words(error.code, remote.url)) from None
            problem = f"the server says {error.code}"
        except (OSError, HTTPException) as error:
            problem = str(error) or type(error).__name__
        failures = 1 if size_of(part) > before else failures + 1
        if failures == TRIES:
            raise FetchError(
                f"{remote.url}: {problem}, {TRIES} times in a row; {size_of(part)} bytes are kept, "
                "the same command goes on"
            )
        wait(min(LONGEST_WAIT_S, FIRST_WAIT_S * 2 ** (failures - 1)))
    _name(part, target, remote)


def in_words(status: int, url: str) -> str:
    """What a status of HTTP means for whoever wants the file."""
    if status in (401, 403):
        return (
            f"{url}: the server refuses ({status}); accept the licence on the model's page while logged in, "
            "then set HF_TOKEN to a token that may read it"
        )
    if status == 404:
        return f"{url}: not there (404); look for it on the model's page, and name its --revision"
    return f"{url}: the server says {status}"


def _go_on(remote: Remote, part: Path, on_bytes: Callable[[int], None]) -> None:
    """Add the rest to what is there. Raises what urllib raises, and OSError for a connection that ends."""
    there = size_of(part)
    if there == remote.size:
        return
    request = urllib.request.Request(remote.url, headers={"Accept-Encoding": "identity"})
    for name, value in remote.headers.items():
        request.add_unredirected_header(name, value)
    if there:
        request.add_header("Range", f"bytes={there}-")
    try:
        answer = urllib.request.urlopen(request, timeout=TIMEOUT_S)
    except HTTPError as error:
        if error.code == 416:  # more is here than there is
            part.unlink()
            on_bytes(-there)
            raise OSError("the part that was here is none of it") from None
        raise
    with answer, part.open("ab") as file:
        if there and answer.status != 206:  # a server that begins anew
            file.truncate(0)
            on_bytes(-there)
            there = 0
        _copy(answer, file, on_bytes)
        length = answer.headers.get("Content-Length")
        whole = remote.size if remote.size is not None else there + int(length) if length else None
        if whole is not None and file.tell() < whole:
            raise OSError("the connection ended early")


def _copy(answer: HTTPResponse, file: BinaryIO, on_bytes: Callable[[int], None]) -> None:
    while block := answer.read1(
        AT_ONCE
    ):  # what has come; nothing of it is lost by a kill while more is awaited
        file.write(block)
        file.flush()
        on_bytes(len(block))


def _name(part: Path, target: Path, remote: Remote) -> None:
    """Give a file its name if it is what was asked for; else one that says that it is not."""
    with part.open("rb+") as file:
        os.fsync(file.fileno())
    found = remote.sum.of(part)
    if not remote.sum.holds(found):
        wrong = target.with_name(f"{target.name}.wrong")
        os.replace(part, wrong)
        raise FetchError(
            f"{target}: expected the checksum {remote.sum.digits}, found {found}; what came is kept as "
            f"{wrong}: delete it and run the command again, or report the server {remote.url}"
        )
    os.replace(part, target)


def part_of(remote: Remote, target: Path) -> Path:
    """Where a file is kept until it is whole; another content of that name has another one."""
    return target.with_name(f".{target.name}.{remote.sum.digits[:16]}.part")


def size_of(path: Path) -> int:
    """In bytes; 0 where there is nothing."""
    return path.stat().st_size if path.exists() else 0
