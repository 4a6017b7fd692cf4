"""What the guides show of a mistake is what is said: every `$ command` with its `error:` line."""

import re
import shlex
from pathlib import Path

import pytest

import inference.__main__ as inference_command
import train.__main__ as train_command
from tests.guides.pages import PAGES, ROOT, blocks

COMMANDS = {"train": train_command.main, "inference": inference_command.main}


def sessions(page: Path) -> list[tuple[str, str]]:
    """Each command after a prompt, with the line below it, where that is an error."""
    found = []
    for block in blocks(page):
        lines = block.text.splitlines()
        pairs = zip(lines, lines[1:], strict=False)
        found += [(first[2:], said) for first, said in pairs if first[:2] == "$ " and said[:6] == "error:"]
    return found


SHOWN = [(page, *session) for page in PAGES for session in sessions(page)]


def test_there_are_some() -> None:
    assert {page.name for page, *_ in SHOWN} >= {"README.md", "troubleshooting.md"}


@pytest.mark.parametrize(
    ("page", "command", "said"), SHOWN, ids=lambda value: value.name if isinstance(value, Path) else None
)
def test_a_mistake_is_said_as_shown(
    page: Path,
    command: str,
    said: str,
    trained: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(trained)
    monkeypatch.setattr("sys.argv", ["guide"])
    python, flag, module, *arguments = shlex.split(command)
    assert (python, flag) == ("python", "-m"), f"{page.relative_to(ROOT)}: {command}"
    assert COMMANDS[module](arguments) == 2
    expected = ".*".join(map(re.escape, said.split("…")))
    assert re.fullmatch(expected, capsys.readouterr().err.strip())
