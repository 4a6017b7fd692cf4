"""Every row of the benchmarks runs at tiny sizes, and a document can be made of what they find."""

import json
import shutil
from pathlib import Path

import pytest

from benchmarks.__main__ import main
from benchmarks.rows import chosen

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["cpu", "gpu"])
def test_every_row_runs(kind: str, tmp_path: Path) -> None:
    assert main([kind, "--small", "--out", str(tmp_path / "results")]) == 0
    (path,) = (tmp_path / "results").glob("*.json")
    rows = json.loads(path.read_text())["rows"]
    assert list(rows) == [row.name for row in chosen(kind, None)]
    for name, row in rows.items():
        assert set(row["targets"]) <= set(row["found"]["figures"]), name
        assert "failed" not in row["found"]["facts"], name
        assert all(rate > 0 for rate in row["rates"].values())
    document = tmp_path / "performance.md"
    shutil.copy(ROOT / "docs" / "performance.md", document)
    assert main(["table", "--out", str(tmp_path / "results"), "--into", str(document)]) == 0
    assert all(row["what"] in document.read_text() for row in rows.values())
