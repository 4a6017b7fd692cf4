"""Tensors in pieces: safetensors files laid out as torch.distributed.checkpoint reads them.

Every rank's file holds the pieces that it owns, and says in its header where in the whole tensors they lie.
A reader takes what it needs from any of them, whatever the number of ranks and the cuts are now.
"""

import json
import warnings
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import cast

import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata

from modules.weights.lazy import LazyTensor, lazy
from modules.weights.writing import write_tensors
from train.checkpoints.files import flush
from train.checkpoints.folders import CheckpointError
from train.parallel.pieces import Piece

# Each rank reads for itself, which is meant: nothing is to be agreed on.
warnings.filterwarnings("ignore", message="torch.distributed is disabled", category=UserWarning)


def write_pieces(path: Path, pieces: Mapping[str, Piece]) -> None:
    """Write this rank's pieces of tensors by name, onto the disk."""
    offsets = {name: {"saved_offsets": list(piece.offsets)} for name, piece in pieces.items()}
    header = {"format": "pt", "DCP_VERSION": "1.0", "DCP_SHARDING_INFO": json.dumps(offsets)}
    write_tensors(path, {name: lazy(piece.values) for name, piece in pieces.items()}, header)
    flush(path)


class Shards:
    """The tensors of a checkpoint's folder. Raises CheckpointError if pieces are missing."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.reader = _Reader(str(folder))
        try:
            found = self.reader.read_metadata().state_dict_metadata
        except Exception as error:  # torch and safetensors raise many kinds for a header that is none
            raise CheckpointError(f"{folder}: its tensors cannot be read ({error})") from error
        self.saved = {name: cast(TensorStorageMetadata, facts) for name, facts in found.items()}
        for name, facts in self.saved.items():
            if sum(chunk.sizes.numel() for chunk in facts.chunks) != facts.size.numel():
                raise CheckpointError(f"{folder}: {name}: pieces of it are missing")

    def facts(self, name: str) -> TensorStorageMetadata:
        """Shape and number format of a tensor. Raises CheckpointError when there is none of that name."""
        if name not in self.saved:
            raise CheckpointError(f"{self.folder}: no tensor {name} in it")
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


def _reason(error: CheckpointException) -> str:
    return "; ".join(f"{type(cause).__name__}: {cause}" for cause, _ in error.failures.values())
