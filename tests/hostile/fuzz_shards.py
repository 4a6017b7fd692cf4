"""Fuzzing of shards: sound ones are damaged at random and read as training and `inspect` read them.

`python -m tests.hostile.fuzz_shards --count 500` says what became of them; the exit status is 1 when a file
made the reader crash, hang, take more memory than allowed, run a program, unpickle or open another file.
"""

import argparse
import json
import logging
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import torch

from dataset_tools.data_config import DataConfig
from dataset_tools.inspecting.survey import survey_shard
from dataset_tools.stream import Stream
from tests.hostile.mutations import fuzzed

ROOT = Path(__file__).parents[2]
MAX_MEMORY = 2 << 30  # that a process may take beside what it has before it reads, bytes
MAX_SECONDS = 60
FORBIDDEN = (
    "subprocess.Popen",
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.fork",
    "socket.connect",
    "pickle.find_class",
)


class ForbiddenError(BaseException):
    """A reader of data did what none may do. No Exception, so that nobody takes it for broken data."""


class Report(NamedTuple):
    """What became of the files."""

    found: Counter[str]  # what was read, and what left out, by kind
    failures: list[str]
    slowest_s: float
    peak_bytes: int  # of resident memory, the interpreter with PyTorch included


def read(shard: Path) -> Counter[str]:
    """Read as training and as `inspect` do; what was found, by kind. Raises nothing for broken data."""
    settings = DataConfig(
        str(shard), epochs=1, image_size_px=64, aspect_ratios=["1/1", "1/2"], batch_size=2, num_workers=0
    )
    stream = Stream(settings)
    found: Counter[str] = Counter()
    try:
        for batch in stream:
            found["used"] += len(batch["keys"])
    except ValueError as error:  # the one way in which a stream may end: nothing is usable
        if not str(error).startswith("data.shards: no") or "\n" in str(error):
            raise
    survey = survey_shard(str(shard))
    json.dumps([survey.broken, [picture.caption for picture in survey.pictures]]).encode()
    if any("memory" in broken.reason.lower() for broken in survey.broken):
        raise MemoryError(str(survey.broken))
    return found + stream.skipped


def guard(shard: Path) -> None:
    """From now on let no program be run, nothing be unpickled or written, no other file be read."""
    mine = (str(shard.parent), sys.prefix, sys.base_prefix, str(ROOT), "/dev", "/proc", "/sys")

    def watch(event: str, arguments: tuple) -> None:
        if event in FORBIDDEN:
            raise ForbiddenError(f"{event}: {arguments!r:.200}")
        if event == "open" and isinstance(arguments[0], str):
            path, mode = os.path.abspath(arguments[0]), arguments[1]
            if not path.startswith(mine) or not set(mode or "r") <= set("rb"):
                raise ForbiddenError(f"open: {path} {mode}")

    sys.addaudithook(watch)


def read_all(numbers: range, seed: int, shard: Path, out: int) -> None:
    """In a process of its own: read the files of these numbers, and write a line of JSON for each."""
    shards = [fuzzed(number, seed) for number in numbers]
    target = os.open(shard, os.O_WRONLY | os.O_CREAT)
    virtual = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (virtual + MAX_MEMORY, virtual + MAX_MEMORY))
    logging.disable()
    guard(shard)
    for data in shards:
        os.ftruncate(target, 0)
        os.pwrite(target, data, 0)
        line: dict[str, Any] = {}
        signal.alarm(MAX_SECONDS)  # ends this process
        began = time.monotonic()
        try:
            line["found"] = read(shard)
        except BaseException:
            line["error"] = traceback.format_exc()
        line["seconds"] = time.monotonic() - began
        line["peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        os.write(out, (json.dumps(line) + "\n").encode())


def forked(numbers: range, seed: int, shard: Path) -> list[dict[str, Any]]:
    """What `read_all` wrote in a child; a last line says of which signal it died, if it did."""
    ours, theirs = os.pipe()
    if (child := os.fork()) == 0:
        try:
            os.close(ours)
            read_all(numbers, seed, shard, theirs)
            os._exit(0)
        finally:
            traceback.print_exc()
            os._exit(1)
    os.close(theirs)
    with os.fdopen(ours) as file:
        lines = [json.loads(line) for line in file]
    _, status = os.waitpid(child, 0)
    return lines + [{"error": f"the process ended with status {status}"}] * (status != 0)


def fuzz(count: int, seed: int, batch: int = 20) -> Report:
    """Read so many fuzzed files."""
    torch.set_num_threads(1)
    found: Counter[str] = Counter()
    failures, slowest, peak = [], 0.0, 0
    with tempfile.TemporaryDirectory() as folder:
        for first in range(0, count, batch):
            numbers = range(first, min(first + batch, count))
            for number, line in enumerate(forked(numbers, seed, Path(folder, f"{first}.tar")), first):
                if "error" in line:
                    failures.append(f"file {number} of seed {seed}: {line['error']}")
                found.update(line.get("found", {}))
                slowest = max(slowest, line.get("seconds", 0.0))
                peak = max(peak, line.get("peak", 0))
    return Report(found, failures, slowest, peak)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    report = fuzz(args.count, args.seed)
    print(*report.failures, sep="\n")
    print(dict(report.found.most_common()))
    print(
        f"{args.count} files, {len(report.failures)} failures; slowest {report.slowest_s:.2f} s,"
        f" peak {report.peak_bytes / 2**20:.0f} MiB"
    )
    return bool(report.failures)


if __name__ == "__main__":
    sys.exit(main())
