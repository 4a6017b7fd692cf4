"""What Hydra itself says of wrong settings is said in our words; its own parts and addresses are not."""

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException, OverrideParseException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from modules.hydra_words import in_words, is_closed, unreadable


def said(folder: Path, *overrides: str) -> str:
    """The line for settings that Hydra cannot compose."""
    (folder / "all.yaml").write_text("steps: 1\nranks: {a: 1}\nshards: [x]\n")
    try:
        with initialize_config_dir(str(folder), version_base="1.3"):
            OmegaConf.to_container(compose("all", list(overrides)), resolve=True)
    except OverrideParseException as error:
        return unreadable(error.override)
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        return in_words(str(error))
    raise AssertionError("nothing was wrong")


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("steps=1,2", "steps=1,2: several values; write [1,2] for a list, or add --multirun to try each"),
        ("++ranks=[1]", "ranks: [1] is of another kind than what it replaces: a list, or settings by name"),
        ("++shards.x=1", "x: set in a list, whose parts have no names; give the whole list: KEY=[...]"),
        ("steps=${nothing}", "steps: Interpolation key 'nothing' not found"),
        ("ranks={a:", "ranks={a:: not a setting that can be read; a bracket or quote stays open; "),
        ("steps==3", "steps==3: not a setting that can be read; to have these characters in a text, "),
        ("a red circle", "a red circle: no setting; expected KEY=VALUE"),
        ("steps", "steps: no setting; expected KEY=VALUE"),
    ],
)
def test_every_problem_is_a_line_without_hydras_words(tmp_path: Path, override: str, line: str) -> None:
    found = said(tmp_path, override)
    assert found.startswith(line)
    assert not [word for word in ("hydra.cc", "object_type", "EQUAL", "++", "Error") if word in found]


def test_an_unknown_message_stays_without_the_address_of_the_manual() -> None:
    assert in_words("all wrong See https://hydra.cc/docs/1.2/x for details") == "all wrong"


@pytest.mark.parametrize("value", ["", "[1, {a: b}]", "'[('", r"it\'s", '"it\'s"', "(a)"])
def test_closed_values(value: str) -> None:
    assert is_closed(value)


@pytest.mark.parametrize("value", ["{a:", "[1", "'x", "a]", "[(])", "it's"])
def test_values_with_something_open(value: str) -> None:
    assert not is_closed(value)
