"""A run's folder is written to by one training at a time."""

import os
import socket
from pathlib import Path
from typing import BinaryIO

from dataset_tools.locks import own
from modules.schema import ConfigError


class Claim:
    """On a run's folder, against a second start of the same command, which would delete what this one writes.

    The system forgets it with the process, however that ends; <run>/.lock stays, and says who was the last.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / ".lock"
        self._file: BinaryIO | None = None

    def hold(self) -> None:
        """Claim the folder, which is there, until `let_go`. Raises ConfigError where another training has."""
        if self._file is not None:
            return
        file = self.path.open("a+b")
        if not own(file):
            file.seek(0)
            holder = file.read(200).decode(errors="replace").strip()
            file.close()
            raise ConfigError(
                f"run.dir: {self.path.parent} is being trained in by {holder}; wait for its end, or name"
                f" another folder (if that machine is gone for good, remove {self.path})"
            )
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        file.flush()
        self._file = file

    def let_go(self) -> None:
        """Others may claim the folder."""
        if self._file is not None:
            self._file.close()
            self._file = None
