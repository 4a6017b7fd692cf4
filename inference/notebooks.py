"""What the notebooks of this folder show: pictures in rows with captions, and what a cell took.

The frame of every notebook, which `tests/notebooks` checks:

- The first cell of code finds the project from wherever the kernel started, makes the paths that follow
  those of the command line, and is the same in all of them (`START` in `scripts/run_notebooks.py`).
- The second, tagged "parameters", has all that a reader may wish to change, each a plain NAME = value, and
  beneath, as a comment, what to write there for the released weights. Sizes and steps come from the weights:

      MODELS = {"run": "outputs/demo"}  # what Cascade.load takes; here what `make demo` has trained
      PROMPTS = ["a red circle", "a blue square"]
      OUT = "outputs/notebooks"  # for files that the notebook writes
      # The released weights, in models/ under the names that the README gives:
      # MODELS = {"run": "models", "text_encoder": "laion/CLIP-ViT-bigG-14-laion2B-39B-b160k"}
      # PROMPTS = ["a lighthouse at dusk", "a fox in the snow"]
- At most 40 cells, 500 kB with its pictures, no paths of the machine; it runs from top to bottom by itself.

`python -m scripts.run_notebooks` executes them with the demo's weights and saves them with their pictures.
"""

import io
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import psutil
import torch
from IPython.display import Image as Shown
from IPython.display import display
from PIL import Image
from torch import Tensor

from inference.pictures import Picture
from modules.host_memory import give_back_freed
from modules.pictures import Row, draw_sheet, to_image

HEIGHT_PX, COLUMNS = 160, 6
# Colours as fine as brightness: edges of flat colours show it. A notebook's pictures have to fit into 500 kB.
JPEG = {"quality": 75, "subsampling": 0, "optimize": True, "progressive": True}
PAUSE_S = 0.005  # between two looks at the memory
MIB = 2**20
Any2D = Picture | Image.Image | Tensor  # tensors: [3, H, W] or [1, H, W], 0 to 1

__all__ = ["Row", "measured", "show", "show_rows"]


def show(
    pictures: Sequence[Any2D],
    captions: Sequence[str] = (),
    *,
    columns: int = COLUMNS,
    height_px: int = HEIGHT_PX,
    smooth: bool = True,
) -> None:
    """Show pictures, so many in a row, with a caption under each (or none at all); as in show_rows."""
    starts = range(0, len(pictures), columns)
    rows = [Row(pictures[i : i + columns], captions[i : i + columns]) for i in starts]  # type: ignore[arg-type]
    show_rows(rows, height_px=height_px, smooth=smooth)


def show_rows(rows: Sequence[Row], *, height_px: int = HEIGHT_PX, smooth: bool = True) -> None:
    """Show rows of pictures, each Row(pictures, captions, label) with a text to its left, as one picture.

    height_px: at which each picture is shown, whatever its size. smooth: False keeps small pictures' pixels
    as squares, and the whole without loss (and so larger).
    """
    scaled = [
        row._replace(pictures=[_scaled(each, height_px, smooth) for each in row.pictures]) for row in rows
    ]
    sheet, file = draw_sheet(scaled), io.BytesIO()
    kind = "jpeg" if smooth else "png"
    sheet.save(file, kind, **JPEG if smooth else {"optimize": True})
    told = [text for row in rows for text in (row.label, *row.captions) if text]
    display(Shown(data=file.getvalue(), format=kind, alt="; ".join(told)))


@contextmanager
def measured(what: str) -> Iterator[None]:
    """Print what the cell's work took, in one line: `8 pictures: 3.1 s, memory at most 655 MiB`.

    Memory is that of the tensors on the GPU if there is one, else all that the process had.
    """
    peak = _GPUPeak() if torch.cuda.is_available() else _ProcessPeak()
    start = time.perf_counter()
    with peak:
        yield
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds = time.perf_counter() - start
    print(f"{what}: {seconds:.1f} s, {peak.name} at most {peak.bytes / MIB:,.0f} MiB")


class _GPUPeak:
    name, bytes = "GPU memory", 0

    def __enter__(self) -> None:
        torch.cuda.reset_peak_memory_stats()

    def __exit__(self, *error: object) -> None:
        self.bytes = torch.cuda.max_memory_allocated()


class _ProcessPeak:
    """Looks at the process again and again from a thread: systems keep a peak, but none for a while."""

    name, bytes = "memory", 0

    def __enter__(self) -> None:
        give_back_freed()  # by what was before
        self._process, self._done = psutil.Process(), threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._look()
        self._thread.start()

    def __exit__(self, *error: object) -> None:
        self._done.set()
        self._thread.join()
        self._look()

    def _watch(self) -> None:
        while not self._done.wait(PAUSE_S):
            self._look()

    def _look(self) -> None:
        self.bytes = max(self.bytes, self._process.memory_info().rss)


def _scaled(picture: Any2D, height_px: int, smooth: bool) -> Image.Image:
    image = _image(picture)
    if smooth or image.height > height_px:
        size = max(1, round(image.width * height_px / image.height)), height_px
        return image.resize(size, Image.Resampling.LANCZOS)
    factor = max(1, round(height_px / image.height))
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)


def _image(picture: Any2D) -> Image.Image:
    if isinstance(picture, Tensor):
        return to_image(picture.expand(3, -1, -1))
    return (picture.image if isinstance(picture, Picture) else picture).convert("RGB")
