"""What tensors free stays with a process that asked for it, until it gives that back."""

import subprocess
import sys
from pathlib import Path

import pytest

import modules

PROGRAM = """\
import resource, sys, torch
from modules.host_memory import give_back_freed, keep_freed
keep_freed(torch.device(sys.argv[1]))
def touched():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.ones(2**24)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
touched()
if "give back" in sys.argv:
    give_back_freed()
print(touched())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="of glibc")
def test_memory_is_taken_from_the_system_once() -> None:
    def pages(*words: str) -> int:
        command = [sys.executable, "-c", PROGRAM, *words]
        around = {"cwd": Path(modules.__file__).parents[1], "encoding": "utf-8"}
        return int(subprocess.run(command, capture_output=True, check=True, **around).stdout)

    once = 2**24 * 4 // 4096
    assert pages("cpu") < 0.1 * once
    assert 0.9 * once < pages("cpu", "give back") < 3 * once
    assert pages("cuda") > 5 * once
