"""A mistake on a command line is one line that names the option and, of a typo, the right one."""

import contextlib
import io
from collections.abc import Callable
from typing import Any

import pytest

from dataset_tools import __main__ as dataset_tools
from scripts import (
    convert_checkpoint,
    estimate,
    evaluate,
    export_checkpoint,
    extract_lora,
    merge,
    report,
)
from scripts.adapter_scores import __main__ as adapter_scores

MISTAKES: list[tuple[Callable[..., Any], list[str], list[str]]] = [
    (convert_checkpoint.main, ["a", "b", "--dtpye", "fp32"], ["--dtpye", "--dtype"]),
    (convert_checkpoint.main, ["a", "b", "--dtype", "fp17"], ["--dtype", "fp17", "fp16"]),
    (convert_checkpoint.main, [], ["required", "IN"]),
    (merge.main, ["base", "out", "--lroa", "x"], ["--lroa", "--lora"]),
    (merge.main, ["base", "out", "--dtpye=x"], ["--dtpye", "--dtype"]),
    (extract_lora.main, ["base", "tuned", "out", "--rnak", "3"], ["--rnak", "--rank"]),
    (extract_lora.main, ["base", "tuned", "out", "--rank", "x"], ["--rank", "x"]),
    (export_checkpoint.main, ["run", "--uot", "x"], ["--uot", "--out"]),
    (export_checkpoint.main, ["no/run"], ["no/run"]),
    (evaluate.main, ["--run", "a", "--dta", "b", "--out", "c"], ["--dta", "--data"]),
    (
        evaluate.main,
        ["--run", "a", "--data", "b", "--out", "c.json", "--stage-c", "steps=[1"],
        ["--stage-c", "steps=[1"],
    ),
    (report.main, [], ["folder"]),
    (report.main, ["no/run"], ["no/run"]),
    (estimate.main, ["--gpus", "0"], ["--gpus", "above 0", "'0'"]),
    (estimate.main, ["--mfu", "nan"], ["--mfu", "above 0", "'nan'"]),
    (estimate.main, ["--pictrues", "3"], ["--pictrues", "--pictures"]),
    (evaluate.main, ["--num-samples", "x"], ["--num-samples", "expected a whole number, found 'x'"]),
    (extract_lora.main, ["b", "t", "o", "--network", "stagec"], ["--network", "did you mean 'stage_c'"]),
    (
        evaluate.main,
        ["--run", "a", "--data", "b", "--out", "c.safetensors"],
        ["--out", ".json", "c.safetensors"],
    ),
    (adapter_scores.main, ["lcn", "--run", "a", "--out", "b"], ["kind", "did you mean 'lcm'"]),
    (dataset_tools.main, ["pakc", "a", "b"], ["COMMAND: found 'pakc'; did you mean 'pack'?"]),
    (dataset_tools.main, ["shapes", "a", "--seed", "x"], ["expected a whole number, found 'x'"]),
    (dataset_tools.main, ["precompute", "a", "b", "--config", "no.yaml"], ["--config no.yaml: no such file"]),
    (dataset_tools.main, ["precompute", "a", "b", "--config", "."], ["error: .: Is a directory"]),
    (dataset_tools.main, ["pack", "a", "b", "--shard-mbb", "3"], ["--shard-mbb", "--shard-mb"]),
    (dataset_tools.main, ["inspect", "no/shards"], ["no/shards"]),
    (dataset_tools.main, ["--verbos", "pack", "a", "b"], ["--verbos"]),
]


@pytest.mark.parametrize(("main", "arguments", "words"), MISTAKES)
def test_a_mistake_is_one_line(main: Any, arguments: list[str], words: list[str], tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        try:
            status = main(arguments)
        except SystemExit as end:
            status = end.code
    line = said.getvalue().strip()
    assert status == 2 and line.startswith("error: ") and "\n" not in line
    assert [word for word in words if word not in line] == []
