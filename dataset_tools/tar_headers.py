"""Headers of plain files in a tar, as nearly all of a shard's are, read in one go.

`tarfile` takes each of a header's 14 fields apart in Python, though a shard needs name and size. What is not
quite as expected here is left to it, and so is every judgement.
"""

import re
from typing import NamedTuple

_NUMBER = rb"[0-7]{7}[\0 ]"
_LONG_NUMBER = rb"([0-7]{11})[\0 ]"
_DEVICE = rb"(?:[0-7]{7}[\0 ]|\0{8})"
_PLAIN = re.compile(
    rb"([^\0]{1,100})\0*"  # name; all that follows has a fixed length, which leaves 100 bytes for it
    + _NUMBER * 3  # mode, user, group
    + _LONG_NUMBER * 2  # bytes, time
    + rb"([0-7]{6})[\0 ]{2}"  # checksum
    + rb"0\0{100}.{8}"  # a file, which is no link; the format's name, which does not matter here
    + rb".{64}"  # names of user and group
    + _DEVICE * 2
    + rb"\0{155}.{12}",  # nothing before the name
    re.DOTALL,
)


class PlainHeader(NamedTuple):
    """What is needed of a header."""

    name: bytes
    num_bytes: int
    checksum: int


def plain_header(block: bytes) -> PlainHeader | None:
    """Read a header of 512 bytes if it is that of a plain file with a sound checksum; else None."""
    if len(block) != 512 or (fields := _PLAIN.fullmatch(block)) is None:
        return None
    checksum = int(fields[4], 8)
    if checksum != sum(block) - sum(block[148:156]) + 8 * ord(" "):  # counted as if it were blank itself
        return None
    return PlainHeader(fields[1], int(fields[2], 8), checksum)
