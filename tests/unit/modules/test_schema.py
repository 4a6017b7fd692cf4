"""Plain data become dataclasses; every mistake is one line: the key, what was expected, what was found."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest

from modules.schema import ConfigError, bounded, convert, from_plain, kind_of, nearest, one_line, shown


@dataclass
class Inner:
    width: int = bounded(4, least=1, most=8)
    kind: Literal["round", "square"] = "round"


@dataclass
class Shelf:
    shorthand: ClassVar[str] = "name"
    name: str
    boards: int = 1


@dataclass
class Outer:
    name: str
    rate: float = 0.5
    inner: Inner = field(default_factory=Inner)
    several: list[Inner] = field(default_factory=list)
    betas: tuple[float, float] = (0.9, 0.99)
    limit: int | None = None
    paths: str | list[str] = ""
    free: dict[str, Any] = field(default_factory=dict)
    on: bool = False

    def __post_init__(self) -> None:
        if self.rate > 1:
            raise ValueError("rate: expected at most 1")
        if "slow" in self.name:
            raise ValueError(f"a {self.name}: expected another name")


def test_right_settings_become_typed_values() -> None:
    plain = {
        "name": "x",
        "rate": 1,
        "inner": {"width": 5},
        "several": [{"kind": "square"}],
        "betas": [0, 0.5],
        "limit": None,
        "paths": ["a", "b"],
        "free": {"anything": [1]},
        "on": True,
    }
    expected = Outer(
        "x", 1.0, Inner(5), [Inner(kind="square")], (0.0, 0.5), None, ["a", "b"], {"anything": [1]}, True
    )
    found = from_plain(Outer, plain)
    assert found == expected and isinstance(found.rate, float) and isinstance(found.betas[0], float)


@pytest.mark.parametrize(
    ("plain", "message"),
    [
        ({"name": "x", "rat": 1}, r"rat: unknown key; did you mean 'rate'\?"),
        ({"name": "x", "inner": {"widt": 1}}, r"inner\.widt: unknown key; did you mean 'width'\?"),
        ({"name": "x", "zzz": 1}, r"zzz: unknown key; expected one of: betas, free"),
        ({}, r"name: missing; expected text"),
        ({"name": "???"}, r"name: missing; expected text"),
        ({"name": 3}, r"name: expected text, found 3"),
        ({"name": "x", "rate": "fast"}, r"rate: expected a number, found 'fast'"),
        ({"name": "x", "rate": True}, r"rate: expected a number, found true"),
        ({"name": "x", "on": 1}, r"on: expected true or false, found 1"),
        ({"name": "x", "limit": 1.5}, r"limit: expected a whole number, found 1\.5"),
        ({"name": "x", "inner": {"width": 9}}, r"inner\.width: expected at most 8, found 9"),
        ({"name": "x", "inner": {"width": 0}}, r"inner\.width: expected at least 1, found 0"),
        ({"name": "x", "inner": {"kind": "squar"}}, r"inner\.kind: found 'squar'; did you mean 'square'\?"),
        ({"name": "x", "inner": 3}, r"inner: expected settings \(width, kind\), found 3"),
        ({"name": "x", "several": [{"width": 2}, {"w": 1}]}, r"several\[1\]\.w: unknown key"),
        ({"name": "x", "several": "a"}, r"several: expected a list of settings"),
        ({"name": "x", "betas": [1, 2, 3]}, r"betas: expected 2 values, found 3"),
        ({"name": "x", "paths": 3}, r"paths: expected text or a list of text, found 3"),
        ({"name": "x", "free": []}, r"free: expected settings, found \[\]"),
        ({"name": "x", "rate": 2}, r"rate: expected at most 1"),
        ([], r": expected settings"),
    ],
)
def test_a_mistake_is_one_line_that_names_the_key(plain: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        from_plain(Outer, plain)
    assert "\n" not in str(caught.value)


def test_messages_of_nested_checks_carry_the_whole_key() -> None:
    with pytest.raises(ConfigError, match=r"^group\.rate: expected at most 1$"):
        from_plain(Outer, {"name": "x", "rate": 3}, where="group")
    with pytest.raises(ConfigError, match=r"^group: a slow x: expected another name$"):
        from_plain(Outer, {"name": "slow x"}, where="group")


def test_a_shorthand_stands_for_one_entry() -> None:
    hint = list[Shelf]
    shelves = convert(hint, ["left", {"name": "right", "boards": 3}, Shelf("top")], "shelves")
    assert shelves == [Shelf("left"), Shelf("right", 3), Shelf("top")]
    with pytest.raises(ConfigError, match=r"shelves\[1\].bords: unknown key; did you mean 'boards'"):
        convert(hint, ["left", {"bords": 3}], "shelves")


def test_nearest_lists_all_when_none_is_near() -> None:
    assert nearest("colour", ["weight", "height"]) == "expected one of: height, weight"
    assert nearest("weigt", ["weight", "height"]) == "did you mean 'weight'?"


def test_values_are_shown_as_they_are_typed() -> None:
    assert shown({"a": None, "b": [True, 1.5, "x"]}) == "{a: null, b: [true, 1.5, 'x']}"
    assert shown([[[[[1]]]]]) == "[[[[[…]]]]]"


def test_kinds_of_values_have_names() -> None:
    kinds = [kind_of(value) for value in (None, {}, [], "x", 1, 1.5, True, object())]
    named = ["null", "settings", "a list", "text", "a whole number", "a number", "true or false"]
    assert kinds == [*named, "something else"]


def test_an_error_of_the_system_begins_with_its_file() -> None:
    with pytest.raises(OSError) as caught:
        Path("/nowhere/x").read_bytes()
    assert one_line(caught.value) == "/nowhere/x: No such file or directory"
    assert one_line(FileNotFoundError("run: nothing there")) == "run: nothing there"
