"""Command lines of KEY=VALUE become settings, and their mistakes one line."""

from dataclasses import dataclass

import pytest

from modules.key_values import settings_from
from modules.schema import ConfigError, bounded


@dataclass(frozen=True)
class Settings:
    run: str
    port: int = bounded(7860, 1, 65535)
    sizes: tuple[int, ...] = ()
    name: str | None = "none"
    share: bool = False


def test_reads_every_kind_of_value() -> None:
    read = settings_from(Settings, ["run=a=b", "port=80", "sizes=[1,2]", "name=null", "share=true"])
    assert read == Settings("a=b", 80, (1, 2), None, True)


def test_text_stays_as_it_was_typed() -> None:
    assert settings_from(Settings, ["run=007", "name=[x"]) == Settings("007", name="[x")


def test_arguments_without_a_key_fill_the_named_places_in_order() -> None:
    assert settings_from(Settings, ["a/b", "3"], ("run", "port")) == Settings("a/b", 3)
    assert settings_from(Settings, ["port=3", "a/b=c"], ("run",)) == Settings("a/b=c", 3)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "run: missing"),
        (["run=a", "prot=1"], "prot: unknown key; did you mean 'port'?"),
        (["run=a", "port=x"], "port: expected a whole number, found 'x'"),
        (["run=a", "port=0"], "port: expected at least 1, found 0"),
        (["run=a", "sizes=[1"], r"sizes: cannot be read: '\[1'"),
        (["run=a", "run=b"], "run: given twice"),
        (["run=a", "here"], "'here': no setting; expected KEY=VALUE"),
    ],
)
def test_a_mistake_is_one_line(arguments: list[str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        settings_from(Settings, arguments)
