"""Results on disk, and the document that is made of them."""

from pathlib import Path
from typing import Any

import pytest

from benchmarks.plot import Bar, bars
from benchmarks.results import Results, read, read_all
from benchmarks.table import BEGIN, END, line_of, number, section, write_document

MACHINE = {
    "processor": "A CPU",
    "cores": 2,
    "threads": 2,
    "flags": ["avx2"],
    "memory_gb": 16.0,
    "system": "Linux x86_64",
}


def entry(figure: str = "ratio", value: float = 0.4, **changes: Any) -> dict[str, Any]:
    """A row of results."""
    timing = {"lower": 0.9, "upper": 1.2, "rounds": 5}
    timings = {
        "ours: eager": {"median": 2.0, **timing},
        "ours: compiled": {"median": 1.0, **timing},
        "peer: eager": {"median": 0.0025, "lower": 0.0024, "upper": 0.0026, "rounds": 5},
    }
    return {
        "kind": "cpu",
        "what": "a step",
        "peer": "a peer",
        "targets": {figure: {"bound": "at most", "value": 0.5, "unit": "×"}},
        "found": {"figures": {figure: value}, "timings": timings, "facts": {}},
        "rates": {"bf16_tflops": 1.5},
        "commit": "abc",
        "date": "2026-01-02T03:04:05+00:00",
        "versions": {"torch": "2"},
        "command": "python -m benchmarks",
        **changes,
    }


def results(small: bool = False, **rows: dict[str, Any]) -> Results:
    return Results("cpu", dict(MACHINE), small, rows)


def test_a_later_run_adds_to_the_file_of_the_machine(tmp_path: Path) -> None:
    first = results(one=entry(), two=entry()).write(tmp_path)
    second = results(two=entry(value=0.3)).write(tmp_path)
    assert first == second == tmp_path / "cpu-a-cpu-2-cores.json"
    (found,) = read_all(tmp_path)
    assert {name: row["found"]["figures"]["ratio"] for name, row in found.rows.items()} == {
        "one": 0.4,
        "two": 0.3,
    }
    assert found.machine == MACHINE
    assert [path.name for path in tmp_path.iterdir()] == [first.name]  # no draft is left


def test_tiny_sizes_and_gpus_have_files_of_their_own(tmp_path: Path) -> None:
    gpu = Results("gpu", {**MACHINE, "gpu": "NVIDIA H200"}, False, {"one": entry()})
    assert gpu.path(tmp_path).name == "gpu-nvidia-h200.json"
    assert results(small=True).path(tmp_path).name == "small-cpu-a-cpu-2-cores.json"


def test_what_is_no_results_is_said_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="holds no results; run `python -m benchmarks` first"):
        read_all(tmp_path)
    for text in ('{"rows": {}}', "[", "[1]"):
        (tmp_path / "x.json").write_text(text)
        with pytest.raises(ValueError, match=r"x\.json: holds no results of the benchmarks"):
            read(tmp_path / "x.json")


def test_the_document_gets_table_and_plot_between_its_marks(tmp_path: Path) -> None:
    results(one=entry(), two=entry("peak_gb", 0.6)).write(tmp_path / "results")
    document = tmp_path / "performance.md"
    document.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    for _ in range(2):  # again over what it made
        write_document(tmp_path / "results", document)
    text = document.read_text()
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert "old" not in text
    assert text.count("| a step | a peer | 1.00 s (900 ms to 1.20 s), compiled |") == 2
    assert "| 2.50 ms (2.40 ms to 2.60 ms), eager |  | ratio **0.400** | at most 0.5 × | met |" in text
    assert "peak gb **0.600** | at most 0.5 × | **missed** |" in text
    assert "Commit abc, 2026-01-02: all rows." in text
    assert (tmp_path / "images" / "performance.png").read_bytes().startswith(b"\x89PNG")


def test_a_document_without_marks_is_left_alone(tmp_path: Path) -> None:
    results(one=entry()).write(tmp_path / "results")
    (tmp_path / "x.md").write_text("text")
    with pytest.raises(ValueError, match=r"x\.md: expected the lines"):
        write_document(tmp_path / "results", tmp_path / "x.md")
    assert (tmp_path / "x.md").read_text() == "text"


def test_tiny_sizes_are_not_judged() -> None:
    text = section(results(small=True, one=entry(value=0.6)))
    assert "measures nothing" in text
    assert "missed" not in text
    assert "missed" in section(results(one=entry(value=0.6)))
    assert line_of(entry(value=0.6)).endswith("ratio 0.600 (at most 0.5 ×) missed")
    assert line_of(entry(value=0.6), judged=False).endswith("ratio 0.600 (at most 0.5 ×)")


def test_rows_of_several_commits_are_told_apart() -> None:
    text = section(results(one=entry(), two=entry(commit="def")))
    assert "Commit abc, 2026-01-02: `one`." in text
    assert "Commit def, 2026-01-02: `two`." in text


def test_bars_are_seconds_of_ours_over_the_peers() -> None:
    fast = entry("speed_sdxl", 4.0)
    fast["targets"]["speed_sdxl"] = {"bound": "at least", "value": 2.0, "unit": "×"}
    fast["found"]["facts"]["floor_ratio"] = 0.1
    assert bars(results(one=entry(), two=fast, three=entry("peak_gb"))) == [
        Bar("a step", 0.4, 0.5, None),
        Bar("a step (sdxl)", 0.25, 0.5, 0.1),
    ]


@pytest.mark.parametrize(
    ("value", "text"), [(0.0123456, "0.0123"), (1.0, "1.00"), (25.04, "25.0"), (1234.5, "1234")]
)
def test_numbers_have_three_digits(value: float, text: str) -> None:
    assert number(value) == text
