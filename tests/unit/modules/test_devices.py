"""Which device is taken where none is named, and what is asked before one is used.

Nothing here computes on MPS: which device is taken is a function of what is there, and that is tested.
"""

import pytest
import torch

from modules.devices import KINDS, best, copies_beside, has_format, named_device, present

MPS = torch.device("mps")


@pytest.mark.parametrize(
    ("found", "alone", "among_others"),
    [
        (("cuda", "mps", "cpu"), "cuda", "cuda"),
        (("cpu", "mps"), "mps", "cpu"),  # whose tensors no library sends to other processes
        (("cpu",), "cpu", "cpu"),
    ],
)
def test_cuda_is_taken_before_mps_before_the_cpu(found, alone, among_others):
    assert best(found) == alone
    assert best(found, is_alone=False) == among_others


def test_what_is_here_is_as_torch_says(monkeypatch):
    asked = {"cuda": "torch.cuda.is_available", "mps": "torch.backends.mps.is_available"}
    for kind, question in asked.items():
        for other in asked.values():
            monkeypatch.setattr(other, lambda is_here=other == question: is_here)
        assert present() == {kind, "cpu"}
        assert named_device("auto", "device", "") == torch.device(kind)
    assert set(KINDS) == {*asked, "cpu"}


@pytest.mark.skipif(torch.backends.mps.is_available(), reason="there is one")
def test_a_device_that_is_not_here_is_one_line():
    with pytest.raises(ValueError, match=r"^device: 'mps' cannot be used here \(.+\)$") as caught:
        named_device("mps", "device", "auto, cpu")
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(torch.backends.mps.is_available(), reason="MPS has bf16 there")
def test_whether_a_device_has_a_number_format_is_tried():
    assert has_format(torch.device("cpu"), torch.bfloat16)
    assert not has_format(MPS, torch.bfloat16)


def test_copies_go_on_beside_their_caller_only_on_cuda():
    assert [copies_beside(torch.device(kind)) for kind in KINDS] == [True, False, False]
