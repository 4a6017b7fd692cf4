"""Tensors in pieces: safetensors files laid out as torch.distributed.checkpoint reads them.

Every rank's file holds the pieces that it owns, and says in its header where in the whole tensors they lie.
A reader takes what it needs from any of them, whatever the number of ranks and the cuts are now.
"""

import json
import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import cast

import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import ChunkStorageMetadata, Metadata, TensorStorageMetadata

from modules.schema import one_line
from modules.weights.lazy import LazyTensor, lazy
from modules.weights.plain_data import head_of, parse_json
from modules.weights.writing import write_tensors
from train.checkpoints.folders import CheckpointError
from train.parallel.pieces import Piece

# Each rank reads for itself, which is meant: nothing is to be agreed on.
warnings.filterwarnings("ignore", message="torch.distributed is disabled", category=UserWarning)


def write_pieces(path: Path, pieces: Mapping[str, Piece]) -> None:
    """Write this rank's pieces of tensors by name, onto the disk."""
    offsets = {name: {"saved_offsets": list(piece.offsets)} for name, piece in pieces.items()}
    header = {"format": "pt", "DCP_VERSION": "1.0", "DCP_SHARDING_INFO": json.dumps(offsets)}
    write_tensors(path, {name: lazy(piece.values) for name, piece in pieces.items()}, header)


class Shards:
    """The tensors of a checkpoint's folder.

    Raises CheckpointError, one line, if pieces are missing, or if what the headers say cannot be: a tensor is
    never larger than its pieces, which are never larger than their files.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.reader = _Reader(str(folder))
        try:
            for path in folder.glob("*.safetensors"):
                parse_json(head_of(path), f"{path}: its header")  # its length, and names that are there twice
            found = self.reader.read_metadata().state_dict_metadata
        except Exception as error:  # torch and safetensors raise many kinds for a header that is none
            raise CheckpointError(f"{folder}: its tensors cannot be read ({_named(error)})") from error
        self.saved = {name: cast(TensorStorageMetadata, facts) for name, facts in found.items()}
        for name, facts in self.saved.items():
            if not _is_whole(facts.size, facts.chunks):
                raise CheckpointError(one_line(f"{folder}: {name}: pieces of it are missing"))

    def facts(self, name: str) -> TensorStorageMetadata:
        """Shape and number format of a tensor. Raises CheckpointError when there is none of that name."""
        if name not in self.saved:
            raise CheckpointError(one_line(f"{self.folder}: no tensor {name} in it"))
        return self.saved[name]

    def read(self, targets: Mapping[str, Tensor]) -> None:
        """Fill tensors, sharded or not, on any device, with the saved ones of the same names and shapes."""
        planner = dcp.DefaultLoadPlanner(flatten_state_dict=False, flatten_sharded_tensors=False)
        try:
            dcp.load(dict(targets), storage_reader=self.reader, planner=planner, no_dist=True)
        except CheckpointException as error:  # not an Exception
            raise CheckpointError(f"{self.folder}: cannot be read ({_reason(error)})") from error

    def below(self, prefix: str) -> dict[str, LazyTensor]:
        """The whole tensors whose names begin with `prefix`, by the rest of their names; read when needed."""
        return {
            name.removeprefix(prefix): LazyTensor(
                tuple(facts.size), facts.properties.dtype, partial(self.whole, name)
            )
            for name, facts in self.saved.items()
            if name.startswith(prefix)
        }

    def whole(self, name: str) -> Tensor:
        """A tensor, on the CPU."""
        facts = self.facts(name)
        target = torch.empty(facts.size, dtype=facts.properties.dtype)
        self.read({name: target})
        return target


class _Reader(dcp.HuggingFaceStorageReader):
    """Reads the headers once."""

    _metadata: Metadata | None = None

    def read_metadata(self) -> Metadata:
        if self._metadata is None:
            self._metadata = super().read_metadata()
        return self._metadata


def _is_whole(size: torch.Size, pieces: Sequence[ChunkStorageMetadata]) -> bool:
    """Whether the pieces lie one behind the other along one dimension and are all of the tensor."""
    if len(pieces) == 1:
        return pieces[0].sizes == size and not any(pieces[0].offsets)
    if any(len(piece.offsets) != len(size) for piece in pieces):
        return False
    cut = [dim for dim in range(len(size)) if any(piece.sizes[dim] != size[dim] for piece in pieces)]
    if len(cut) != 1 or any(offset for piece in pieces for offset in _others(piece.offsets, cut[0])):
        return False
    end = 0
    for start, length in sorted((piece.offsets[cut[0]], piece.sizes[cut[0]]) for piece in pieces):
        if start != end:
            return False
        end += length
    return end == size[cut[0]]


def _others(sides: Sequence[int], dim: int) -> Sequence[int]:
    return [*sides[:dim], *sides[dim + 1 :]]


def _reason(error: CheckpointException) -> str:
    causes = (_named(cause) for cause, _ in error.failures.values())
    return one_line("; ".join(causes))


def _named(error: BaseException) -> str:
    return one_line(f"{type(error).__name__}: {error}")
