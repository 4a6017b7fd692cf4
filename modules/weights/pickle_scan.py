"""What a file of `torch.save` would do, read before it does it: names that it calls, room that it takes.

torch's own reader of plain data runs no code, but lets a small file ask for any amount of memory: by parts
that are compressed, or by calls that double a text.
"""

import pickletools
import re
import zipfile
from pathlib import Path
from typing import IO

ZIP_MAGIC = b"PK\x03\x04"
LEGACY_PICKLES = 5  # of torch before 1.6: magic number, version, machine, content, numbers of the storages
MOST_PICKLE_BYTES = 16 * 2**20  # a released network's is below one of them; each byte can make an object
MOST_STEPS = 10**6  # of a pickle; a tensor takes about 40
PLAIN = re.compile(
    r"collections (OrderedDict|Counter)|(__builtin__|builtins) set"
    r"|torch (Size|device|[A-Z][A-Za-z0-9]*Storage|b?float\d\w*|complex\d+|u?int\d+|bool)"
    r"|torch\.storage (Untyped|Typed)Storage|torch\.nn\.parameter Parameter"
    r"|torch\._utils _rebuild_(tensor(_v[23])?|parameter)|torch\.serialization _get_layout"
)


def check_pickled(path: Path) -> None:
    """Raise ValueError for a file that calls anything but what tensors need, or holds more than its size.

    Also for one that is not whole.
    """
    with path.open("rb") as file:
        if file.read(len(ZIP_MAGIC)) == ZIP_MAGIC:
            check_archive(file, path.stat().st_size)
            return
        file.seek(0)
        for _ in range(LEGACY_PICKLES):
            check_names(file)


def check_archive(file: IO[bytes], size: int) -> None:
    """The same for a zip archive of `size` bytes."""
    try:
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
                raise ValueError("its parts are compressed, as torch writes none")
            if sum(entry.file_size for entry in entries) > size:
                raise ValueError("its parts are larger than the file")
            for entry in entries:
                if entry.filename.endswith(".pkl"):
                    if entry.file_size > MOST_PICKLE_BYTES:
                        raise ValueError(
                            f"{entry.filename} has {entry.file_size} bytes, too many for tensors"
                        )
                    with archive.open(entry) as pickled:
                        check_names(pickled)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
        raise ValueError(f"not a whole archive: {error}") from error


def check_names(file: IO[bytes]) -> None:
    """Raise ValueError unless the next pickle of a file is short and names only what tensors need."""
    try:
        for step, (opcode, argument, position) in enumerate(pickletools.genops(file)):
            if step >= MOST_STEPS:
                raise ValueError(f"it has more than {MOST_STEPS} steps, too many for tensors")
            if opcode.name in ("GLOBAL", "INST") and not PLAIN.fullmatch(str(argument)):
                raise ValueError(f"it calls {str(argument).replace(' ', '.', 1)}, which no tensor needs")
            if position is not None and position > MOST_PICKLE_BYTES:
                raise ValueError(f"more than {MOST_PICKLE_BYTES} bytes of it are no tensors")
    except (IndexError, OverflowError, UnicodeError) as error:
        raise ValueError(f"not a whole pickle: {error}") from error
