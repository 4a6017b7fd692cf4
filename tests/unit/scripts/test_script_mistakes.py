"""What the other commands say of places that cannot be had, and of runs that they are not for."""

from collections.abc import Callable
from pathlib import Path

import pytest

from modules import build
from modules.weights import save_network
from scripts import house_drawing, maths_plots
from scripts.adapter_scores import __main__ as adapter_scores
from scripts.chain import run_chain


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where a folder is wanted."""
    (tmp_path / "file").write_text("no JSON")
    return tmp_path / "file"


@pytest.mark.parametrize(
    "command",
    [
        lambda file: house_drawing.main([f"out={file / 'house.svg'}"]),
        lambda file: maths_plots.main([f"out={file}"]),
        lambda file: adapter_scores.main(["lcm", "--run", str(file), "--out", str(file)]),
    ],
)
def test_a_place_that_cannot_be_had_is_one_line(
    command: Callable[[Path], int], file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(file) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {file}") and error.count("\n") == 1


@pytest.mark.parametrize("inside", ["", "timings.json"])
def test_a_chain_without_its_record_is_one_line(
    inside: str, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        run_chain({}, file / inside)
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {file}") and error.count("\n") == 1


@pytest.mark.parametrize(("facts", "found"), [({}, "null"), ({"filter": {"name": "edge"}}, "'edge'")])
def test_a_controlnet_of_another_filter_is_not_judged(
    facts: dict[str, object], found: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = build("controlnet", {"c_in": 4, "c_proj": 8, "proj_blocks": [0], "bottleneck_mode": "simple"})
    save_network(tmp_path / "run" / "weights" / "controlnet.safetensors", network, "controlnet", facts)
    run = str(tmp_path / "run")
    assert adapter_scores.main(["controlnet", "--run", run, "--out", str(tmp_path / "out")]) == 2
    expected = f"error: {run}: expected the filter canny or inpainting, found {found}\n"
    assert capsys.readouterr().err == expected
