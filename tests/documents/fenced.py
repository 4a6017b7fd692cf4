"""What stands in the fences of a page: files, by their title, and commands."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

FENCE = re.compile(r"^```(\w*)(?: title=\"([^\"]+)\")?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """language and title ("" for none) as in the first line of the fence."""

    language: str
    title: str
    text: str


def blocks(page: Path) -> list[Block]:
    """All fences of a page, in order."""
    return [Block(*found) for found in FENCE.findall(page.read_text())]


def write_files(page: Path, folder: Path) -> dict[str, str]:
    """Write every block with a title to that place; returns the texts by title."""
    files = {block.title: block.text for block in blocks(page) if block.title}
    for title, text in files.items():
        (folder / title).parent.mkdir(parents=True, exist_ok=True)
        (folder / title).write_text(text)
    return files


def run_commands(page: Path, folder: Path) -> list[str]:
    """Run every block of bash as it stands; returns what each has printed. Fails where one fails."""
    printed = []
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1"}
    for block in blocks(page):
        if block.language == "bash":
            command = ["bash", "-euo", "pipefail", "-c", block.text]
            done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
            assert done.returncode == 0, f"{block.text}\n{done.stdout}\n{done.stderr}"
            printed.append(done.stdout + done.stderr)
    return printed
