"""Draws docs/images/house.svg: the rooms of the project, floor by floor, and what each may import.

python -m scripts.house_drawing               # or out=FILE
"""

import sys
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import NamedTuple

from modules.key_values import settings_from
from modules.schema import ConfigError, one_line

IMAGE = Path(__file__).parents[1] / "docs" / "images" / "house.svg"
GREY = "#828b98"  # to be read on white and on black alike
WIDTH, FLOOR, GAP, LEFT, ROOF = 900, 118, 14, 30, 78


class Room(NamedTuple):
    """A room: what it is for, and the rooms below that it may import."""

    name: str
    words: tuple[str, ...]
    imports: tuple[str, ...]
    colour: str


BELOW_TRAIN = ("modules", "gdf", "dataset_tools")
ALL = ("modules", "gdf", "dataset_tools", "train", "inference")
SHARDS = ("pictures in: pack, inspect, precompute;", "the stream that training reads")
PICTURES = ("pictures out: the cascade, its tasks,", "notebooks, the web page")
NETWORKS = ("the networks, adapters, weight files,", "settings and pages that all need")
MATHS = ("the diffusion maths: functions of log-SNR;", "torch alone")
FLOORS: tuple[tuple[Room, ...], ...] = (  # from above
    (
        Room("scripts/", ("demo, evaluate, convert, merge, estimate",), ALL, "#8d76dc"),
        Room("benchmarks/", ("ours beside others, in turns",), ALL, "#8d76dc"),
    ),
    (Room("train/", ("one loop, many recipes; reports, checkpoints, processes",), BELOW_TRAIN, "#4a7de8"),),
    (
        Room("dataset_tools/", SHARDS, ("modules",), "#2fa572"),
        Room("inference/", PICTURES, ("modules", "gdf"), "#e07b39"),
    ),
    (
        Room("modules/", NETWORKS, (), "#c2518f"),
        Room("gdf/", MATHS, (), "#b3922a"),
    ),
)  # fmt: skip


@dataclass
class Settings:
    """out: the file of the drawing."""

    out: str = str(IMAGE)


def text(x: float, y: float, words: str, size: int, style: str = "") -> str:
    """A line of text from x, on the base line y."""
    return f'<text x="{x:g}" y="{y:g}" font-size="{size}" {style}>{escape(words)}</text>'


def room(place: Room, x: float, y: float, width: float) -> str:
    """A room's walls and words."""
    lines = [
        f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{FLOOR - GAP}" rx="6" fill="{place.colour}"'
        f' fill-opacity="0.12" stroke="{place.colour}" stroke-width="1.5"/>',
        text(x + 18, y + 32, place.name, 20, f'fill="{place.colour}" font-weight="600" class="name"'),
    ]
    lines += [text(x + 18, y + 54 + 18 * row, words, 14) for row, words in enumerate(place.words)]
    below = "imports " + ", ".join(place.imports) if place.imports else "imports no other room"
    # Along the floor, where the pipes run.
    lines.append(text(x + 18, y + FLOOR - GAP - 10, below, 12, 'font-style="italic"'))
    return "\n".join(lines)


def drawing() -> str:
    """The whole picture as SVG."""
    height = ROOF + FLOOR * len(FLOORS) + 46
    right = WIDTH - LEFT
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" fill="{GREY}"'
        ' font-family="system-ui, sans-serif">',
        "<title>The house: seven rooms on four floors; nothing imports upwards</title>",
        f'<path d="M{LEFT - 18} {ROOF} L{WIDTH / 2:g} 14 L{right + 18} {ROOF}" fill="none" stroke="{GREY}"'
        ' stroke-width="2" stroke-linejoin="round"/>',
        text(WIDTH / 2, ROOF - 16, "nothing imports upwards", 14, 'text-anchor="middle"'),
    ]
    for row, rooms in enumerate(FLOORS):
        width = (right - LEFT - GAP * (len(rooms) - 1)) / len(rooms)
        for column, place in enumerate(rooms):
            parts.append(room(place, LEFT + column * (width + GAP), ROOF + row * FLOOR + GAP / 2, width))
    ground = ROOF + FLOOR * len(FLOORS) + 4
    parts.append(f'<path d="M4 {ground} H{WIDTH - 4}" stroke="{GREY}" stroke-width="2"/>')
    beside = "configs/ (YAML, no code)     tests/     docs/"
    parts.append(text(WIDTH / 2, ground + 28, beside, 14, 'text-anchor="middle" xml:space="preserve"'))
    return "\n".join([*parts, "</svg>", ""])


def main(arguments: list[str]) -> int:
    """Write the drawing; returns the exit status."""
    try:
        path = Path(settings_from(Settings, arguments).out)
        path.write_text(drawing(), encoding="utf-8")
    except (ConfigError, OSError) as error:
        print("error:", one_line(error), file=sys.stderr)
        return 2
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
