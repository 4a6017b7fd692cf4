"""What tensors free stays with a process that asked for it, until it gives that back."""

import subprocess
import sys
from pathlib import Path

import pytest

import modules

PROGRAM = """\
import resource, sys, torch
from modules.host_memory import give_back_freed, keep_freed
if sys.argv[1] != "as it is":
    keep_freed()
def touched():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.ones(2**24)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
touched()
if sys.argv[1] == "given back":
    give_back_freed()
print(touched())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="of glibc")
def test_memory_is_taken_from_the_system_once() -> None:
    def pages(word: str) -> int:
        command = [sys.executable, "-c", PROGRAM, word]
        around = {"cwd": Path(modules.__file__).parents[1], "encoding": "utf-8"}
        return int(subprocess.run(command, capture_output=True, check=True, **around).stdout)

    once = 2**24 * 4 // 4096
    assert pages("kept") < 0.1 * once
    assert 0.9 * once < pages("given back") < 3 * once
    assert pages("as it is") > 5 * once
