"""The drawing of the house says what the test of the house checks, and its page names folders that exist."""

import re
from pathlib import Path

from scripts.house_drawing import FLOORS, IMAGE, drawing, main
from tests.architecture.test_layers import ROOMS

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "architecture.md"


def test_the_drawing_is_the_one_that_is_committed(tmp_path: Path) -> None:
    assert main([f"out={tmp_path / 'house.svg'}"]) == 0
    assert (tmp_path / "house.svg").read_text() == IMAGE.read_text() == drawing()


def test_every_room_may_import_what_the_drawing_says() -> None:
    drawn = {room.name.rstrip("/"): set(room.imports) for floor in FLOORS for room in floor}
    assert drawn == {name: below - {name} for name, below in ROOMS.items()}


def test_no_room_imports_from_its_own_floor_or_above() -> None:
    for height, floor in enumerate(FLOORS):
        below = {room.name.rstrip("/") for rooms in FLOORS[height + 1 :] for room in rooms}
        for room in floor:
            assert set(room.imports) <= below, room.name


def test_folders_and_files_of_the_page_are_there() -> None:
    text = PAGE.read_text()
    named = set(re.findall(r"`((?:\w+/)+(?:\w+\.py)?)`", text))
    assert len(named) > 20
    for place in named:
        if place in {
            "app/",
            "compare/",
            "filters/",
            "samplers/",
            "trackers/",
        }:  # within the folder of their row
            assert list(ROOT.glob(f"*/**/{place}")), place
        else:
            assert (ROOT / place).exists(), place
    for room in ROOMS:
        assert re.search(rf"`{room}/", text), room
