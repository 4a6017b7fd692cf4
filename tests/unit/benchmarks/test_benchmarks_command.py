"""The command line of the benchmarks, and the processes that rows run in."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import __main__ as command
from benchmarks import processes
from benchmarks.processes import RowFailed, run_row
from benchmarks.rows import all_rows, chosen

ROOT = Path(__file__).parents[3]
NO_ROW = 3  # processes: the command, the server that starts others, and what tidies up after them
PATIENCE_S, SHORT_S = 300.0, 8.0
TARGETED = {  # every figure that is to be reached, by row
    "stage_c_1b_step": {"ratio"},
    "stage_b_700m_step": {"ratio"},
    "stage_c_training_fp32": {"ratio"},
    "stage_c_training_bf16": {"ratio"},
    "text_to_picture_small": {"ratio"},
    "data_plain": {"speed"},
    "data_bare_decode": {"share_at_scale"},
    "stage_c_3_6b_training": {"speed", "matrix_share"},
    "stage_b_1_5b_training": {"speed"},
    "text_to_picture_batch_1": {"speed_documented", "speed_compiled", "speed_sdxl"},
    "text_to_picture_batch_8": {"speed_documented", "speed_compiled", "speed_sdxl"},
    "memory_fine_tune": {"peak_gb", "estimate_error"},
    "memory_lora": {"peak_gb", "estimate_error"},
    "memory_lora_nf4": {"peak_gb", "estimate_error"},
    "memory_controlnet": {"peak_gb", "estimate_error"},
    "memory_drawing": {"peak_gb"},
    "memory_drawing_nf4": {"peak_gb"},
}


def test_every_figure_that_is_to_be_reached_has_a_row() -> None:
    rows = all_rows()
    for name, figures in TARGETED.items():
        assert figures <= set(rows[name].targets), name


def test_an_unknown_row_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--rows", "stage_c_1b_stp"]) == 2
    error = capsys.readouterr().err
    assert error == "error: --rows: no row 'stage_c_1b_stp' of kind cpu; did you mean 'stage_c_1b_step'?\n"


def test_rows_are_listed_by_kind(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--list"]) == 0
    on_cpu = capsys.readouterr().out
    assert command.main(["gpu", "--list"]) == 0
    on_gpu = capsys.readouterr().out
    assert "stage_c_1b_step: Stage C 1 B, bf16, one guided step at 24 × 24" in on_cpu
    assert "memory_lora: " in on_gpu
    assert "stage_c_1b_step" not in on_gpu


def test_chosen_rows_keep_the_order_that_they_are_named_in() -> None:
    names = ["stage_c_training_bf16", "stage_b_700m_step"]
    assert [row.name for row in chosen("cpu", ",".join(names))] == names


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_gpu_rows_without_a_gpu_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["gpu"]) == 2
    assert "there is no CUDA device here; --small shows on a CPU" in capsys.readouterr().err


def test_a_table_of_nothing_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["table", "--out", str(tmp_path), "--into", str(tmp_path / "x.md")]) == 2
    assert "holds no results" in capsys.readouterr().err


def test_a_row_that_fails_or_dies_is_told_and_ends_nothing_else() -> None:
    with pytest.raises(RowFailed, match=r"stage_b_700m_step: .*no variant is left") as failure:
        run_row("stage_b_700m_step", "cpu", {"small": True, "without": ["eager", "compiled"]})
    assert "Traceback" in failure.value.trace
    with pytest.raises(RowFailed, match="not_a_row: KeyError"):
        run_row("not_a_row", "cpu", {"small": True})


def test_a_process_that_is_killed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_measure", ended)
    with pytest.raises(RowFailed, match="a_row: its process ended with 9"):
        run_row("a_row", "cpu", {"small": True})


def ended(*arguments: Any) -> None:
    os._exit(9)


@pytest.mark.skipif(not Path("/proc").exists(), reason="looks for processes as Linux lists them")
def test_a_row_ends_with_the_command_that_was_killed(tmp_path: Path) -> None:
    words = [
        sys.executable,
        "-m",
        "benchmarks",
        "--small",
        "--rows",
        "training_on_latents",
        "--out",
        str(tmp_path),
    ]
    command_line = subprocess.Popen(words, cwd=ROOT, start_new_session=True)
    group = command_line.pid
    try:
        assert soon(lambda: len(members(group)) > NO_ROW)
        command_line.kill()
        command_line.wait()
        assert soon(lambda: not members(group), SHORT_S)  # the row itself takes longer
    finally:
        for pid in members(group):
            os.kill(pid, signal.SIGKILL)


def members(group: int) -> list[int]:
    """Processes of a group that have not ended."""
    found = []
    for place in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, _, of = place.read_text().rpartition(")")[2].split()[:3]
            if int(of) == group and state != "Z":
                found.append(int(place.parent.name))
    return found


def soon(holds: Callable[[], bool], seconds: float = PATIENCE_S) -> bool:
    until = time.monotonic() + seconds
    while not holds() and time.monotonic() < until:
        time.sleep(0.05)
    return holds()
