"""Where a cascade computes, in which number format, and what does not work there."""

import pytest
import torch

from inference.networks import pick_device, usual_format
from inference.reading import Keeping
from modules.devices import best, present

MPS = torch.device("mps")


def test_auto_is_the_best_device_that_is_here():
    assert pick_device("auto") == torch.device(best(present()))


def test_a_format_is_chosen_that_the_device_has():
    assert usual_format(torch.device("cpu")) == "fp32"
    # Without a Mac's GPU nothing can be made on it, as with bf16 on one whose system is old.
    assert usual_format(MPS) == ("bf16" if torch.backends.mps.is_available() else "fp16")


def test_four_bits_on_mps_are_refused_in_one_line():
    with pytest.raises(ValueError, match=r"^quantize: found nf4, which does not work on mps; use int8$"):
        Keeping(MPS, torch.float16, quantize={"stage_c": "nf4"})
    Keeping(MPS, torch.float16, quantize={"stage_c": "int8"})
