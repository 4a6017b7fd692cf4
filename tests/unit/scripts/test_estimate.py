"""The estimate on paper: what is counted is counted right, and what is assumed can be changed."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from scripts.estimating import advice, arguments, assume, estimate, main, settings
from train.budget.course import Counted, course, many, storage
from train.budget.gpus import GPUS, gpu, peak_rate

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def plain():
    return settings(["experiment=train/stage_c_1b", "parallel=hsdp"])


def assumed(*options: str):
    return assume(arguments().parse_args(options))


def test_figures_follow_from_settings_and_assumptions(plain):
    options = assumed("--gpus", "64", "--gpus-per-node", "8", "--pictures", "256e6", "--price", "3")
    each = Counted(1e12, 2e12, 1e12, 1_030_785_040, 1_030_785_040)
    found = course(plain, each, options)
    assert found["pictures in all"] == "512 M, 2 epochs of a data set of 256 M (--pictures)"
    seconds = 16 * 4e12 / (0.4 * 989e12)
    assert found["step"].startswith(f"{seconds:.3g} s for 1024 pictures, {1024 / seconds:.3g} pictures/s")
    hours = seconds * 500_000 / 3600
    assert found["cost"] == f"{hours * 64 * 3:.4g}, at 3 per GPU and hour, as typed"
    assert "--price" in course(plain, each, assumed("--gpu", "t4"))["cost"]
    assert "at 2.69 per GPU and hour (US$" in course(plain, each, assumed())["cost"]
    # Shards of 8: gathered twice in bf16, gradients scattered in fp32.
    assert found["traffic per GPU within its group"] == f"{8 * 1.030785 * 7 / 8 / seconds:.1f} GB/s"
    assert storage(plain, each, options)["checkpoint"].startswith("16.5 GB")
    assert "traffic per GPU within its group" not in course(plain, each, assumed())


def test_pictures_are_counted_in_millions_only_where_there_are_as_many():
    assert [many(pictures) for pictures in (26, 1280, 256e6)] == ["26", "1,280", "256 M"]


def test_a_page_of_figures_of_a_small_run(capsys):
    assert main(["experiment=tiny/lora", "--gpu", "t4", "--price", "1"]) == 0
    page = capsys.readouterr().out
    assert page.count("\n") < 50 and all(len(line) < 160 for line in page.splitlines())
    assert "learn" in page and "frozen: stage_c" in page and "memory=8gb" in page
    assert "course on 1 x t4 (by its data sheet), assumed" in page


def test_a_preset_is_told_of_as_training_would_set_it():
    found = estimate(settings(["experiment=tiny/lora", "memory=8gb"]), assumed())
    assert found["memory per GPU, counted"]["chosen"].startswith("memory=8gb: nothing is needed; expected")


def test_latents_leave_out_what_made_them_and_all_decoding():
    plain = settings(["experiment=tiny/stage_c"])
    pictures, latents = estimate(plain, assumed()), estimate(plain, assumed("--latents"))
    assert {"frozen: semantic_compressor", "frozen: text_encoder"} <= pictures["parameters"].keys()
    assert not any("encoder" in name or "compressor" in name for name in latents["parameters"])
    (course_of_latents,) = (section for title, section in latents.items() if title.startswith("course"))
    assert (
        "nothing is decoded" in course_of_latents["reading latents"] and "data cores" not in course_of_latents
    )
    refused = settings(["experiment=tiny/controlnet"])
    with pytest.raises(ValueError, match="controlnet learns from pixels"):
        estimate(refused, assumed("--latents"))


def test_a_preset_is_named_where_a_gpu_is_too_small():
    class Full:
        """A chooser for which 12 GB are enough."""

        def cheapest(self, limit):
            return limit >= 12e9

    assert advice(Full(), int(20e9), 24) == "fits as it is"
    assert advice(Full(), int(30e9), 24) == "too little as it is; memory=24gb fits"


def test_the_present_machine_is_measured():
    present = gpu("present")
    assert present.bf16 > 0 and present.fp32 > 0 and "measured" in present.source
    assert peak_rate(torch.device("cpu"), torch.float32, seconds=0) > 0  # however late it begins
    assert {"a100", "h100", "h200", "rtx3060", "rtx4090"} <= GPUS.keys()
    for each in GPUS.values():
        assert each.bf16 > each.fp32 > 1 and each.memory_gb >= 12 and each.bandwidth_gb_s >= 300


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["experiment=train/stage_c_1"], "did you mean"),
        (
            ["experiment=tiny/lora", "--gpu", "h1000"],
            "no GPU is known as 'h1000'; did you mean 'h100'?",
        ),
        (["experiment=tiny/lora", "data.batch_sise=1"], "data.batch_sise: unknown key"),
        ([], "experiment: missing"),
    ],
)
def test_a_mistake_is_one_line(capsys, arguments, message):
    assert main(arguments) == 2
    line = capsys.readouterr().err
    assert message in line and line.count("\n") == 1


def test_it_starts_as_a_file_and_as_a_module():
    for command in ([str(ROOT / "scripts" / "estimate.py")], ["-m", "scripts.estimate"]):
        done = subprocess.run(
            [sys.executable, *command, "--help"], cwd=ROOT, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0 and "experiment=finetune/lora_stage_c_3_6b" in done.stdout
