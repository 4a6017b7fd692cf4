"""Kills readers of exact epochs with SIGKILL again and again, and counts what they read.

    python -m tests.faults.epochs --kills 500 --seed 0

The processes of 1 to 3 ranks, with 0 to 2 workers each, note the keys of what they read and now and then save
their position. Killed (at a random batch, or at a random time; workers too), they go on from the last that
all of them saved; what was read after it does not count. Every sample has to be read once per epoch.
"""

import argparse
import itertools
import json
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random

from dataset_tools.data_config import DataConfig
from dataset_tools.stream import Stream
from tests.faults.lives import fork
from tests.faults.material import write_shards

EPOCHS, ROWS, SAVE_EVERY = 2, 6, 3  # ROWS: of a global batch, which 1, 2 and 3 ranks share
COUNTS = (13, 2, 9, 17, 1, 11, 8)  # samples per shard
SIZES = ((16, 16), (32, 16), (15, 17), (16, 32))
BY_TIME, LONGEST_S = 0.3, 1.0  # share of the kills, and how long a life is before one of them


@dataclass(frozen=True)
class Case:
    """One kind of reading."""

    split: str
    size: int
    num_workers: int

    def __str__(self) -> str:
        return f"by {self.split}, {self.size} ranks x {self.num_workers} workers"


@dataclass
class Reading:
    """The readers of one case and what they leave in a folder."""

    case: Case
    shards: Path
    folder: Path
    seed: int

    def position(self, rank: int, number: int | str) -> Path:
        return self.folder / f"position_{rank}_{number}.json"

    def notes(self, rank: int) -> Path:
        return self.folder / f"read_{rank}.txt"

    def read(self, rank: int, start: int, die_at: int | None) -> None:
        """Read on from the position after `start` batches; die when batch `die_at` has come."""
        config = DataConfig(
            shards=str(self.shards), image_size_px=16, multiple_px=4, aspect_ratios=["1/1", "1/2"],
            batch_size=ROWS // self.case.size, num_workers=self.case.num_workers, shuffle=8,
            split=self.case.split, epochs=EPOCHS,
        )  # fmt: skip
        stream = Stream(config, rank=rank, world_size=self.case.size, seed=self.seed)
        if (saved := self.saved(rank, start)) is not None:
            stream.load_state_dict(json.loads(saved.read_text()))
        number = start
        with self.notes(rank).open("a") as notes:
            for number, batch in enumerate(stream, start + 1):
                keys = batch["keys"] if batch["share"] else []
                print(number, *keys, file=notes, flush=True)
                if number == die_at:
                    os.killpg(0, signal.SIGKILL)
                if number % SAVE_EVERY == 0:
                    self.save(stream, rank, number)
        self.save(stream, rank, "end")

    def save(self, stream: Stream, rank: int, number: int | str) -> None:
        path = self.position(rank, number)
        unfinished = path.with_suffix(".unfinished")
        unfinished.write_text(json.dumps(stream.state_dict()))
        unfinished.rename(path)

    def saved(self, rank: int, start: int) -> Path | None:
        """Where the rank's position after so many batches lies; that of its end if it has no more."""
        paths = [self.position(rank, number) for number in (start, "end")]
        return next((path for path in paths if path.exists()), None) if start else None

    def go_back(self) -> int:
        """The newest position that all ranks saved; what came after it is forgotten. Returns its number."""
        ranks = range(self.case.size)
        highest = max(len(list(self.folder.glob(f"position_{rank}_*"))) for rank in ranks) * SAVE_EVERY
        common = (n for n in range(highest, 0, -SAVE_EVERY) if all(self.saved(rank, n) for rank in ranks))
        start = next(common, 0)
        for path in self.folder.glob("position_*_*.json"):
            number = path.stem.split("_")[2]
            rank_has_more = number == "end" and self.position(int(path.stem.split("_")[1]), start).exists()
            if rank_has_more or (number != "end" and int(number) > start):
                path.unlink()
        for rank in ranks:
            if self.notes(rank).exists():
                lines = self.notes(rank).read_text().splitlines(keepends=True)
                kept = (line for line in lines if line.endswith("\n") and int(line.split()[0]) <= start)
                self.notes(rank).write_text("".join(kept))
        return start

    def counts(self) -> Counter[str]:
        """How often each key was read."""
        lines = (line for rank in range(self.case.size) for line in self.notes(rank).read_text().splitlines())
        return Counter(key for line in lines for key in line.split()[1:])


def live(reading: Reading, deaths: Sequence[int | None], after_s: float | None) -> bool:
    """Start all ranks; the first death, or the time, ends all. Returns whether they came to the end."""
    start = reading.go_back()
    pids = [fork(partial(reading.read, rank, start, die_at)) for rank, die_at in enumerate(deaths)]
    end = None if after_s is None else time.monotonic() + after_s
    is_over = True
    while pids:
        for pid in list(pids):
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                pids.remove(pid)
                is_over &= status == 0
        if not is_over or (end is not None and time.monotonic() > end):
            for pid in pids:
                os.killpg(pid, signal.SIGKILL)
        time.sleep(0.002)
    return is_over


def trial(reading: Reading, keys: Sequence[str], most_kills: int) -> tuple[int, list[str]]:
    """One reading to its end: how often it was killed (once at least), and what was wrong."""
    chance, size = Random(f"{reading.case} {reading.seed}"), reading.case.size
    reading.folder.mkdir()
    num_batches = EPOCHS * len(keys) // ROWS  # of each rank, about
    for killed in range(most_kills):
        if killed and chance.random() < BY_TIME:
            is_over = live(reading, [None] * size, chance.uniform(0, LONGEST_S))
        else:
            latest = num_batches if killed else num_batches // 2
            is_over = live(reading, [chance.randint(1, latest) for _ in range(size)], None)
        if is_over:
            break
    else:
        killed += 1
        if not live(reading, [None] * size, None):
            return killed, [f"{reading.case}: ends with an error"]
    found = reading.counts()
    lost = sum(EPOCHS - min(found[key], EPOCHS) for key in keys)
    twice = sum(max(found[key] - EPOCHS, 0) for key in found)
    wrong = f"{reading.case}, seed {reading.seed}: {lost} lost, {twice} twice"
    return killed, [wrong] if lost or twice else []


def main(arguments: Sequence[str]) -> int:
    """Returns the exit status: 1 if a sample was lost or read twice."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--kills", type=int, default=500, help="over all cases, at least")
    parser.add_argument("--of-one", type=int, default=4, help="of one reading, at most")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args(arguments)
    cases = [Case(*each) for each in itertools.product(("samples", "shards"), (1, 2, 3), (0, 1, 2))]
    kills, problems = 0, list[str]()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        keys = write_shards(folder / "shards", COUNTS, SIZES)
        for number in itertools.count():
            case, seed = cases[number % len(cases)], asked.seed + number // len(cases)
            reading = Reading(case, folder / "shards", folder / str(number), seed)
            killed, wrong = trial(reading, keys, asked.of_one)
            kills, problems = kills + killed, problems + wrong
            verdict = wrong or "every sample once per epoch"
            print(f"{kills} kills  {case}: {killed} kills, {verdict}", flush=True)
            if kills >= asked.kills and number + 1 >= len(cases):
                break
    print(f"{kills} kills, {number + 1} readings; {len(problems)} problems", *problems, sep="\n")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
