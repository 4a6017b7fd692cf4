"""A table of the metrics."""

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from modules.whole_files import write_whole
from train.reports.trackers.base import RunFacts, Tracker


@dataclass
class CsvTracker(Tracker):
    """metrics.csv: one row per report.

    Of a run that goes on after `step`, later rows are dropped, and columns that only these had: the file is
    as it was when that step was done.
    """

    def start(self, run: RunFacts) -> None:
        self.path = run.folder / "metrics.csv"
        self.columns = ["step"]
        if self.path.exists():
            rows = [row for row in self._rows() if int(row["step"]) <= run.step]
            known = list(rows[0])[1:] if rows else []
            self.columns += [name for name in known if any(row[name] for row in rows)]
            self._rewrite(rows)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        new = [name for name in values if name not in self.columns]
        if new:  # a metric that was not there before: the header must be written again
            rows = self._rows() if self.path.exists() else []
            self.columns += new
            self._rewrite(rows)
        with self.path.open("a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, self.columns, restval="").writerow({"step": step, **values})

    def _rows(self) -> list[dict[str, str]]:
        """What is written; a last line that a killed process left half-written is not."""
        whole, _, _ = self.path.read_bytes().rpartition(b"\n")
        return list(csv.DictReader(whole.decode().splitlines()))

    def _rewrite(self, rows: list[dict[str, Any]]) -> None:
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, self.columns, restval="", extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
        write_whole(self.path, text.getvalue(), alone=True)
