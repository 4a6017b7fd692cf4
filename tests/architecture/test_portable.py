"""Nothing needs Linux outside of train/parallel and the shell scripts; text is the same everywhere.

This is read from the sources: it is no run on Windows or macOS.
"""

import subprocess
from collections import Counter
from pathlib import Path

import pytest

from tests.architecture.portable import Finding, findings

ROOT = Path(__file__).parents[2]
ROOMS = ("gdf", "modules", "dataset_tools", "train", "inference", "scripts", "benchmarks")
FREE = ("train/parallel/",)  # the launchers that it talks to are Linux's; one process needs none of it
# file: what it may use -> why that does no harm elsewhere
ALLOWED: dict[str, dict[str, str]] = {
    "dataset_tools/locks.py": {"fcntl": "an ImportError leaves locks out"},
    "dataset_tools/children.py": {
        name: "asked for by hasattr"
        for name in ("pthread_sigmask", "SIG_BLOCK", "SIG_UNBLOCK", "SIG_SETMASK")
    },
    "dataset_tools/workers.py": {"get_context": "fork only where it is safe, else spawn: start_method"},
    "benchmarks/machine.py": {
        "resource": "an ImportError leaves it out",
        "sched_getaffinity": "asked for by hasattr",
        "/proc/cpuinfo": "asked for by exists",
        "sysconf": "its AttributeError is caught",
        "getloadavg": "asked for by hasattr",
    },
    "modules/products.py": {"/proc/cpuinfo": "asked for by exists"},
    "benchmarks/processes.py": {"get_context": "a server on a CPU, where there is one, else spawn"},
}
RESERVED = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10))}
MOST_CHARACTERS = 120  # of a path; Windows allows 260 in all, the folder it is cloned to included

PLANTED = {
    "import os\nos.fork()": "os.fork",
    "import signal\nsignal.signal(signal.SIGUSR1, print)": "signal.SIGUSR1",
    "from os import sched_getaffinity": "os.sched_getaffinity",
    "import fcntl": "fcntl",
    "from resource import getrusage": "resource",
    "open('/proc/self/stat', 'rb')": "/proc/self/stat",
    "import subprocess\nsubprocess.Popen([], preexec_fn=print)": "preexec_fn",
    "import subprocess\nsubprocess.run([], text=True)": "run",
    "import multiprocessing\nmultiprocessing.get_context('fork')": "get_context",
    "import multiprocessing\nmultiprocessing.get_context()": "get_context",
    "open('x')": "open",
    "open('x', 'w', newline='')": "open",
    "path.open()": "open",
    "path.open('a')": "open",
    "path.read_text()": "read_text",
    "path.write_text('x')": "write_text",
    "path.symlink_to('x')": "symlink_to",
}
HARMLESS = """
import multiprocessing, os, signal, subprocess, tarfile
multiprocessing.get_context("spawn")
open("x", "rb"), open("x", encoding="utf-8"), open("x", mode="wb")
path.open("rb"), path.open("w", encoding="utf-8"), tarfile.open("x", "w"), Image.open(path)
path.read_text(encoding="utf-8"), path.write_text("x", encoding="utf-8", newline="")
signal.signal(signal.SIGTERM, print), os.replace("a", "b"), os.getpid()
subprocess.run([], text=True, encoding="utf-8"), cache.open(url)
"""


def short(finding: Finding) -> str:
    return finding.name.removeprefix("os.").removeprefix("signal.")


def sources() -> list[Path]:
    return [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]


@pytest.mark.parametrize("path", sources(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_nothing_is_used_that_only_linux_has(path: Path) -> None:
    place = path.relative_to(ROOT).as_posix()
    allowed = ALLOWED.get(place, {})
    found = [each for each in findings(path.read_text(encoding="utf-8")) if short(each) not in allowed]
    if place.startswith(FREE):
        found = [each for each in found if "text" in each.why]
    assert not found, "\n".join(f"{place}:{each.line}: {each.name}: {each.why}" for each in found)


def test_every_exception_is_needed() -> None:
    for place, allowed in ALLOWED.items():
        used = {short(each) for each in findings((ROOT / place).read_text(encoding="utf-8"))}
        assert used >= set(allowed), f"{place} uses no {set(allowed) - used} any more"


@pytest.mark.parametrize("text", PLANTED, ids=lambda text: text.splitlines()[-1])
def test_a_planted_fault_is_found(text: str) -> None:
    assert [finding.name for finding in findings(text)] == [PLANTED[text]]


def test_what_is_there_everywhere_is_left_alone() -> None:
    assert findings(HARMLESS) == []


def committed() -> list[str]:
    listed = subprocess.run(["git", "-C", ROOT, "ls-files", "-z"], capture_output=True, check=True).stdout
    return listed.decode().split("\0")[:-1]


def unusable(names: list[str]) -> list[str]:
    """Names that Windows or macOS cannot hold, or cannot hold beside the others."""
    bad = [name for name in names if len(name) > MOST_CHARACTERS or set(name) & set('<>:"|?*\\')]
    for name in names:
        parts = name.split("/")
        if any(part.split(".")[0].lower() in RESERVED or part[-1] in ". " for part in parts):
            bad.append(name)
    folded = Counter(name.casefold() for name in names)
    return bad + [name for name in names if folded[name.casefold()] > 1]


def test_names_of_files_can_be_cloned_everywhere() -> None:
    assert unusable(committed()) == []
    faults = ["docs/a:b.md", "modules/aux.py", "x/Name.py", "x/name.py", "docs/end.", "y" * 130]
    assert sorted(unusable(faults)) == sorted(faults)
