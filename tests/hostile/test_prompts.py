"""What a page or a command line hands on: prompts of any length and script, and numbers out of range."""

from typing import Any

import pytest

from inference.config import Config, plan
from inference.pictures import slug
from inference.settings import Request
from modules.schema import from_plain, one_line

PROMPTS = ("", " ", "a" * 2**20, "猫" * 1000, "\u202eback\u202c", "👩\u200d👧", "a\nb\tc", "${x}", "{a: [1]}")
PROMPTS += ("%s", "../../x")


@pytest.mark.parametrize("prompt", PROMPTS, ids=range(len(PROMPTS)))
def test_any_text_is_a_prompt(prompt: str) -> None:
    [request] = plan(from_plain(Config, {"prompt": prompt, "seed": 1}), 0)
    assert request.prompt == prompt
    assert "/" not in slug(prompt) and 0 < len(slug(prompt)) <= 48


@pytest.mark.parametrize("prompt", ["a\0b", "half \ud800", 3, ["a", None], {"a": 1}, True])
def test_what_is_no_text_is_refused_in_one_line(prompt: Any) -> None:
    with pytest.raises(ValueError, match="^prompt") as raised:
        from_plain(Config, {"prompt": prompt})
    assert one_line(raised.value).isprintable()


@pytest.mark.parametrize("key", ["width_px", "height_px"])
@pytest.mark.parametrize("side", [0, -1, 15, 16385, 10**9, 10**30, float("nan"), float("inf"), "64", True])
def test_sides_out_of_range_are_refused(key: str, side: Any) -> None:
    with pytest.raises(ValueError, match=f"^{key}: expected"):
        plan(from_plain(Config, {key: side, "seed": 1}), 0)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"seed": -1}, "seed"),
        ({"seed": 2**63}, "seed"),
        ({"num_images": 10**12}, "num_images"),
        ({"batch_size": 10**9}, "batch_size"),
        ({"stage_c": {"steps": 10**9}}, r"stage_c\.steps"),
        ({"stage_c": {"steps": 0}}, r"stage_c\.steps"),
        ({"stage_c": {"guidance": float("nan")}}, r"stage_c\.guidance"),
        ({"stage_c": {"guidance": [1.0, float("inf")]}}, r"stage_c\.guidance"),
        ({"stage_c": {"shift": 1e39}}, r"stage_c\.shift"),
        ({"strength": float("nan")}, "strength"),
        ({"dtype": "fp17"}, "dtype"),
    ],
)
def test_numbers_out_of_range_are_refused(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=f"^{named}: "):
        plan(from_plain(Config, changes), 0)


def test_a_request_made_without_the_command_line_is_checked_as_well() -> None:
    with pytest.raises(ValueError, match="width_px: expected 16 to 16384"):
        Request(width_px=10**9)
