"""metrics.csv as columns of numbers, also while it is being written and after it was damaged."""

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]
STEP = "step"


class Table(NamedTuple):
    """columns: name -> [R], one number per report, NaN where it has none; problems: one line each."""

    columns: dict[str, Numbers]
    problems: tuple[str, ...] = ()

    @property
    def steps(self) -> Numbers:
        """Steps done at each report, [R], ascending."""
        return self.columns.get(STEP, np.zeros(0))

    def column(self, name: str) -> Numbers:
        """[R]; all NaN when there is no such column."""
        return self.columns.get(name, np.full(len(self.steps), math.nan))

    def newest(self, name: str) -> float:
        """The last number of a column; NaN when there is none."""
        values = self.column(name)
        finite = values[np.isfinite(values)]
        return float(finite[-1]) if len(finite) else math.nan


EMPTY = Table({})


def read_table(path: Path) -> Table:
    """The whole rows of a file that may be growing; none if it is not there yet.

    A last line without an end is still being written and is left for later. Rows that are no numbers are
    left out and counted. Of two rows with the same step the later counts.
    """
    try:
        whole, _, _ = path.read_bytes().rpartition(b"\n")
    except FileNotFoundError:
        return EMPTY
    except OSError as error:
        return Table({}, (f"{path.name}: cannot be read ({error.strerror})",))
    lines = whole.decode(errors="replace").splitlines()
    if not lines:
        return EMPTY
    names = _cells(lines[0])
    if STEP not in names or len(set(names)) != len(names):
        return Table({}, (f"{path.name}: not the metrics of a run; its first line names no column 'step'",))
    rows, damaged = dict[float, dict[str, float]](), 0
    for line in lines[1:]:
        row = _numbers(_cells(line), names)
        if row is None:
            damaged += 1
        else:
            rows.pop(row[STEP], None)
            rows[row[STEP]] = row
    ordered = [rows[step] for step in sorted(rows)]
    columns = {name: np.array([row[name] for row in ordered], np.float64) for name in names}
    told = (f"{path.name}: {damaged} damaged line{'s' * (damaged > 1)} left out",) if damaged else ()
    return Table(columns, told)


def _cells(line: str) -> list[str]:
    try:
        return next(csv.reader([line]), [])
    except csv.Error:
        return []


def _numbers(cells: Sequence[str], names: Sequence[str]) -> dict[str, float] | None:
    """A row by column; None for one that is none."""
    if len(cells) != len(names):
        return None
    try:
        row = {name: float(cell) if cell else math.nan for name, cell in zip(names, cells, strict=True)}
    except ValueError:
        return None
    if not math.isfinite(row[STEP]) or row[STEP] < 0:
        return None
    return {name: value if math.isfinite(value) else math.nan for name, value in row.items()}
