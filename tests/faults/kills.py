"""Kills tiny runs with SIGKILL at random moments until they are done, and compares them with ones left alone.

    python -m tests.faults.kills --recipe stage_b,stage_c,lora --processes 1,2 --kills 200 --seed 0

A moment is drawn evenly over the time that a run takes, or is just before one of its changes of a file (an
opening, a renaming, a removal). All processes die, or one of two. Then the same settings are started again.
In the end weights, averages, optimizers, data position, counters, sample sheets and reports have to be those
of a run that was left alone, bit for bit. Prints a table of where the kills fell; status 1 if any differed.
"""

import os
import signal

# Threads do not live through a fork; torch and tokenizers would start some.
os.environ |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "TOKENIZERS_PARALLELISM": "false"}

import argparse
import itertools
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import torch

from tests.faults.cases import STYLES, settings, write_material
from tests.faults.compare import differences
from tests.faults.lives import DEADLINE_S, Kill, Life, start
from train.config import config_from_plain
from train.recipes import make_recipe

LONGEST_LIFE_S = 300.0
MOST_LIVES = 12  # of one run; then it is left alone until it is done
MOST_PROBLEMS = 20  # then nothing more is tried
BY_OPERATION, ONE_OF_TWO = 0.4, 0.3  # shares of kills


@dataclass(frozen=True)
class Case:
    """One kind of run."""

    recipe: str
    size: int
    mode: str
    style: str

    def __str__(self) -> str:
        return f"{self.recipe}, {self.size} x {self.mode}, {self.style}"


@dataclass
class Reference:
    """The uninterrupted run of a case."""

    run: Path
    seconds: float
    operations: int


@dataclass
class Found:
    """What came of all kills."""

    phases: Counter[str] = field(default_factory=Counter)
    runs: int = 0
    slowest_s: float = 0.0  # until the others had ended after one of two was killed
    problems: list[str] = field(default_factory=list)

    @property
    def kills(self) -> int:
        return self.phases.total()


class Harness:
    """Runs cases below a folder."""

    def __init__(self, folder: Path, seed: int, recipes: Sequence[str]) -> None:
        self.folder, self.random, self.found = folder, Random(seed), Found()
        self.material = folder / "material"
        write_material(self.material)
        for recipe in recipes:
            warm_up(settings(recipe, folder / "warm", self.material))
        self.references: dict[Case, Reference] = {}
        self.numbers = itertools.count()

    def settings(self, case: Case, run: Path) -> dict[str, Any]:
        style = STYLES[case.style]
        return settings(case.recipe, run, self.material, mode=case.mode, size=case.size, **style)

    def reference(self, case: Case) -> Reference:
        """The case's uninterrupted run, made when it is first asked for."""
        if case not in self.references:
            run = self.folder / f"whole{next(self.numbers)}"
            life = self.live(case, run, Kill())
            if any(life.statuses.values()):
                raise RuntimeError(f"{case}: the uninterrupted run failed:\n{tail(life.log)}")
            seconds = time.monotonic() - life.began
            self.references[case] = Reference(run, seconds, life.boards[0].operations)
        return self.references[case]

    def live(self, case: Case, run: Path, kill: Kill) -> Life:
        """One start of a run, to its end or its death."""
        life = start(self.settings(case, run), case.size, run.with_suffix(".log"), kill)
        # Before the ranks have met none can miss another: what started them kills all, as torchrun does.
        everyone = range(case.size)
        if kill.after_s is not None:
            life.wait(kill.after_s)
            has_met = all(board.phase != "starting" for board in life.boards)
            life.kill(everyone if kill.rank is None or not has_met else everyone[kill.rank : kill.rank + 1])
        elif kill.operation is not None:
            life.wait(LONGEST_LIFE_S, for_death=True)
            has_met = all(board.phase != "starting" for board in life.boards)
            life.kill(everyone if life.died and (kill.rank is None or not has_met) else everyone[:0])
        if not life.wait(LONGEST_LIFE_S):
            life.kill(range(case.size), signal.SIGUSR2)  # into the log
            life.wait(1.0)
            life.kill(range(case.size))
            life.wait(DEADLINE_S)
            self.found.problems.append(f"{case}: processes did not end:\n{tail(life.log)}")
        if kill.rank is not None and life.died is not None:
            self.found.slowest_s = max(self.found.slowest_s, time.monotonic() - life.died)
        life.close()
        return life

    def trial(self, case: Case, most_kills: int) -> None:
        """One run, killed again and again until it is done, and compared."""
        reference = self.reference(case)
        run = self.folder / f"killed{next(self.numbers)}"
        died: list[str] = []
        for lives in itertools.count():
            is_spared = len(died) >= most_kills or lives >= MOST_LIVES
            kill = Kill() if is_spared else self.draw(case, reference)
            life = self.live(case, run, kill)
            if kill == Kill() or all(status == 0 for status in life.statuses.values()):
                break
            if -9 in life.statuses.values():
                died.append(phase(life, kill, run))
        if any(life.statuses.values()):
            unequal = [f"cannot go on:\n{tail(life.log)}"]
        else:
            unequal = differences(reference.run, run)
        self.found.problems += [f"{case}, killed in {died}: {line}" for line in unequal]
        self.found.runs += 1
        self.found.phases.update(died)
        told = f"{self.found.kills} kills  {case}: {len(died)} kills:"
        print(told, *unequal or ["as uninterrupted"], flush=True)

    def draw(self, case: Case, reference: Reference) -> Kill:
        """When and whom to kill next."""
        one = case.size > 1 and self.random.random() < ONE_OF_TWO
        if self.random.random() < BY_OPERATION:
            return Kill(operation=self.random.randint(1, reference.operations), rank=0 if one else None)
        rank = self.random.randrange(case.size) if one else None
        return Kill(after_s=self.random.uniform(0, reference.seconds), rank=rank)


def warm_up(plain: dict[str, Any]) -> None:
    """Let this process do once what takes long the first time in every process that is forked from it."""
    recipe = make_recipe(config_from_plain(plain))
    recipe.build(torch.device("cpu"))
    recipe.export(Path(plain["run"]["dir"]))


def phase(life: Life, kill: Kill, run: Path) -> str:
    """Where a kill fell: what the first rank was doing, and whether a checkpoint was being written."""
    board = life.boards[0]
    where = f"{board.phase}, before: {board.operation}" if kill.operation else board.phase
    unfinished = [path for path in (run / "checkpoints").glob("*") if "unfinished" in path.name]
    return f"{where} (checkpoint unfinished)" if unfinished else where


def tail(log: Path) -> str:
    """The last lines of a log."""
    return "\n".join(log.read_text().splitlines()[-40:]) if log.exists() else "(no log)"


def cases(asked: argparse.Namespace) -> Iterator[Case]:
    """All kinds of runs in turn, for ever."""
    return itertools.cycle(
        Case(recipe, int(size), mode, style)
        for style in asked.styles.split(",")
        for recipe in asked.recipe.split(",")
        for size in asked.processes.split(",")
        for mode in (["single"] if size == "1" else asked.modes.split(","))
    )


def main(arguments: Sequence[str]) -> int:
    """Returns the exit status: 1 if anything was not as in an uninterrupted run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--recipe", default="stage_b,stage_c,lora", help="names of tests/faults/cases.py")
    parser.add_argument("--processes", default="1,2")
    parser.add_argument("--kills", type=int, default=200, help="over all recipes and numbers of processes")
    parser.add_argument("--of-one", type=int, default=8, help="of one run, at most")
    parser.add_argument("--modes", default="ddp,fsdp", help="with several processes")
    parser.add_argument("--styles", default=",".join(STYLES), help="; ".join(map(str, STYLES.items())))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="keep the runs here")
    asked = parser.parse_args(arguments)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        harness = Harness(asked.folder or Path(temporary), asked.seed, asked.recipe.split(","))
        for case in cases(asked):
            harness.trial(case, min(asked.of_one, asked.kills - harness.found.kills))
            if harness.found.kills >= asked.kills or len(harness.found.problems) > MOST_PROBLEMS:
                break
    report(harness.found, time.monotonic() - began)
    return 1 if harness.found.problems else 0


def report(found: Found, seconds: float) -> None:
    """Print where the kills fell, and what came of it."""
    print(f"\n{'kills':>5}  fell in")
    for where, count in sorted(found.phases.items()):
        print(f"{count:5}  {where}")
    print(f"{found.kills} kills, {found.runs} runs, {seconds:.0f} s; {len(found.problems)} problems")
    if found.slowest_s:
        print(f"after one of two was killed the other ended within {found.slowest_s:.1f} s")
    for problem in found.problems:
        print(f"PROBLEM {problem}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
