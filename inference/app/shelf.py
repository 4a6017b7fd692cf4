"""Where finished pictures lie: each in a folder whose name nobody can guess, and where it is kept as well."""

import secrets
import shutil
import threading
from collections import deque
from pathlib import Path

from inference.pictures import Picture, write_picture

MOST_PICTURES = 2000  # of all visitors, in the page's own folder; older ones go


class Shelf:
    """folder: the page's own. output: where pictures are kept for good, None for nowhere."""

    def __init__(self, folder: Path, output: Path | None) -> None:
        self.folder, self.output = folder, output
        self._places: deque[Path] = deque()
        self._lock = threading.Lock()

    def put(self, picture: Picture) -> Path:
        """Write a picture with its metadata; returns the path in the page's own folder."""
        place = self.folder / secrets.token_urlsafe(16)
        if self.output is None:
            path = write_picture(picture, place)
        else:
            kept = write_picture(picture, self.output)
            place.mkdir(parents=True)
            path = Path(shutil.copyfile(kept, place / kept.name))
        with self._lock:
            self._places.append(place)
            while len(self._places) > MOST_PICTURES:
                shutil.rmtree(self._places.popleft(), ignore_errors=True)
        return path
