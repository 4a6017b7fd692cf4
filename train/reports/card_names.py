"""Names of files and places as they may be told to everybody."""

import re
from pathlib import PurePosixPath, PureWindowsPath
from urllib.parse import urlsplit


def called(place: object) -> str:
    """A file, folder or URL without what is this machine's or secret: host, user, key, path from the root.

    A path within the working directory stays as it is, of others the last part does. "a command" for one.
    """
    text = str(place)
    if text.startswith(("pipe:", "cmd:")) or "|" in text:
        return "a command"
    if re.match(r"[a-zA-Z][a-zA-Z0-9+.-]+://", text):
        text = "/" + urlsplit(text).path
    windows = PureWindowsPath(text)
    path = PurePosixPath(windows.as_posix() if windows.drive or "\\" in text else text)
    is_own = not (path.is_absolute() or windows.drive or text.startswith("~") or ".." in path.parts)
    return str(path) if is_own else path.name or "unnamed"


def escaped(text: object) -> str:
    """Text in a cell of a Markdown table, as it is."""
    return re.sub(r"([|\\`*_<>\[\]])", r"\\\1", " ".join(str(text).split()))


def code(text: object) -> str:
    """Text as code, in a table too."""
    return f"`{' '.join(str(text).split()).replace('`', '').replace('|', '¦')}`"
