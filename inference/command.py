"""What `python -m inference` does with its settings."""

import random
import sys
from collections.abc import Sequence
from pathlib import Path

from inference.config import Config, plan
from inference.pictures import Picture, write_picture, write_png
from inference.progress import ProgressBar
from inference.recreate import recreate
from inference.tasks import task_of
from modules.pictures import contact_sheet
from modules.processes import place

MAX_RANDOM_SEED = 2**31  # easier to type again than larger ones


def carry_out(config: Config) -> list[Path]:
    """Make the pictures that the settings ask for, write each as soon as it is done; returns their paths.

    Prints one line per file, and before them, on stderr, one about device and memory. Raises ValueError or
    FileNotFoundError, before anything is built where possible.
    """
    if place().size > 1:
        raise ValueError("several processes share the lines of a file of prompts; set prompts_file=FILE")
    if config.recreate is not None:
        return [_recreate(config)]
    requests = plan(config, random.randrange(MAX_RANDOM_SEED))
    for request in requests:
        task_of(request)
    cascade = config.cascade()
    batches = cascade.batches(requests, config.batch_size)
    print(cascade.described(), file=sys.stderr)
    folder = Path(config.output)
    pictures, paths = [], []
    with ProgressBar(len(batches)) as bar:
        for picture in cascade.run(batches, bar):
            paths.append(write_picture(picture, folder))
            pictures.append(picture)
            bar.print(str(paths[-1]))
    if config.sheet:
        paths.append(write_sheet(pictures, folder))
        print(paths[-1])
    return paths


def write_sheet(pictures: Sequence[Picture], folder: Path) -> Path:
    """Write all pictures on one sheet with their prompts; returns its path."""
    sheet = contact_sheet([p.image for p in pictures], [p.facts["prompt"] for p in pictures])
    return write_png(sheet, folder, "sheet")


def _recreate(config: Config) -> Path:
    with ProgressBar(1) as bar:
        picture, verdict = recreate(config, bar)
    path = write_picture(picture, Path(config.output))
    print(f"{path}: {verdict}")
    return path
