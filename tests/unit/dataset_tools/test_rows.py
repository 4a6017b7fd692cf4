"""Rows of a batch in one tensor."""

import pytest
import torch

from dataset_tools.rows import stacked
from dataset_tools.workers import Workers


def interleaved(rows: int = 3) -> list[torch.Tensor]:
    """Pictures as decoders leave them, each a crop of a larger one."""
    pictures = torch.arange(rows * 9 * 11 * 3).remainder(256).byte().view(rows, 9, 11, 3)
    return [picture[2:8, 1:9].permute(2, 0, 1) for picture in pictures]


def test_pictures_of_any_memory_layout_make_one_plain_batch():
    rows = interleaved()
    expected = torch.stack(rows)
    assert not rows[0].is_contiguous() and expected.unique().numel() > 200
    for given in (
        rows,
        [row.contiguous() for row in rows],
        [rows[0], rows[1].contiguous(), rows[2].flip(2).flip(2)],
    ):
        batch = stacked(given)
        assert batch.is_contiguous() and torch.equal(batch, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64])
def test_other_tensors_keep_their_type(dtype):
    rows = [torch.arange(12).view(3, 2, 2).to(dtype) * number for number in range(2)]
    assert stacked(rows).dtype == dtype and torch.equal(stacked(rows), torch.stack(rows))


@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8])
def test_rows_of_two_shapes_are_refused(dtype):
    with pytest.raises(RuntimeError):
        stacked([torch.zeros(3, 4, 4, dtype=dtype), torch.zeros(3, 1, 1, dtype=dtype)])


class Batches:
    """What a data worker makes, and whether it is shared memory there already."""

    def items(self, worker, num_workers):
        for rows in (interleaved(), [row.float() for row in interleaved()]):
            batch = stacked(rows)
            yield batch, batch.is_shared()


def test_a_worker_makes_batches_where_the_training_reads_them():
    pictures, numbers = Workers(Batches(), 1, 2, lambda batch: batch)
    assert pictures[1] and numbers[1]
    assert torch.equal(pictures[0], torch.stack(interleaved()))
    assert torch.equal(numbers[0], torch.stack(interleaved()).float())
    assert not stacked(interleaved()).is_shared()
