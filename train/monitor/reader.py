"""Runs as they are now, read again only when they have written something."""

import base64
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from modules.schema import ConfigError
from train.monitor.runs import Run, find_runs, read_run, stamp

PNG = b"\x89PNG\r\n\x1a\n"


class Reader:
    """The runs in a folder, or the one run that it is; many readers of the page share it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.Lock()
        self._read: dict[str, tuple[Any, Run]] = {}
        self._places = find_runs(folder)

    @property
    def names(self) -> list[str]:
        """Of the runs, also of those that came since; if the folder is gone, of those that were there."""
        with suppress(ConfigError, OSError):
            self._places = find_runs(self.folder)
        return list(self._places)

    def run(self, name: Any) -> Run | None:
        """A run as it is now; None for whatever names none, or none any more."""
        folder = self._places.get(name) if isinstance(name, str) else None
        if folder is None:
            return None
        now = stamp(folder)
        with self._lock:
            before = self._read.get(name)
            if before is None or before[0] != now:
                self._read[name] = now, read_run(name, folder)
            return self._read[name][1]

    def chosen(self, names: Sequence[str]) -> list[Run]:
        """Those of these runs that there are."""
        return [run for run in map(self.run, names) if run]

    def sheet(self, name: Any, step: Any) -> str:
        """A sample sheet as a data URI; empty when there is none, or no picture. Takes whatever is asked."""
        run = self.run(name)
        path = next((sheet.path for sheet in run.sheets if sheet.step == step), None) if run else None
        try:
            data = path.read_bytes() if path else b""
        except OSError:
            return ""
        return f"data:image/png;base64,{base64.b64encode(data).decode()}" if data.startswith(PNG) else ""
