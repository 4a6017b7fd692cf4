"""What the commands about weights say of mistakes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scripts import convert_checkpoint, extract_lora, merge


def test_weights_of_merging_are_finite(files: dict[str, Path], tmp_path: Path, capsys: Any) -> None:
    with pytest.raises(SystemExit):
        merge.main([str(files["base"]), str(tmp_path / "x.safetensors"), "--lora", f"{files['lora']}:nan"])
    assert "expected a finite weight" in capsys.readouterr().err


Arguments = Callable[[dict[str, Path]], list[str]]


@pytest.mark.parametrize(
    ("command", "arguments", "message"),
    [
        (convert_checkpoint, lambda f: ["nowhere", "x", "--to", "official"], "nowhere: no weights"),
        (convert_checkpoint, lambda f: [str(f["base"]), "x", "--to", "oficial"], "did you mean 'official'"),
        (
            convert_checkpoint,
            lambda f: [str(f["base"]), str(f["other"]), "--to", "official"],
            "exists already",
        ),
        (
            convert_checkpoint,
            lambda f: [str(f["base"]), "x", "--to", "official", "--part", "stage_d"],
            "part: found",
        ),
        (
            convert_checkpoint,
            lambda f: [str(f["lora"]), "x.safetensors", "--to", "koya"],
            "did you mean 'kohya'",
        ),
        (merge, lambda f: [str(f["base"]), "x.safetensors"], "nothing to merge"),
        (merge, lambda f: [str(f["base"]), "x.safetensors", "--lora", str(f["other"])], "not a LoRA"),
        (extract_lora, lambda f: [str(f["base"]), str(f["other"]), "folder"], "name of a .safetensors file"),
    ],
)
def test_mistakes_are_one_line(
    command: Any,
    arguments: Arguments,
    message: str,
    files: dict[str, Path],
    capsys: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = set(tmp_path.iterdir())
    monkeypatch.chdir(tmp_path)
    assert command.main(arguments(files)) == 2
    error = capsys.readouterr().err
    assert message in error and error.startswith("error: ") and error.count("\n") == 1
    assert set(tmp_path.iterdir()) == before
