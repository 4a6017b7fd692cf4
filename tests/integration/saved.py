"""What is in a checkpoint, for tests to look at."""

import json
from pathlib import Path
from typing import Any

from torch import Tensor

from train.checkpoints.shards import Shards


def saved_tensors(checkpoint: Path, prefix: str = "") -> dict[str, Tensor]:
    """The whole tensors whose names begin with `prefix`, by the rest of their names."""
    return {name: tensor.read() for name, tensor in Shards(checkpoint).below(prefix).items()}


def saved_texts(checkpoint: Path) -> dict[str, Any]:
    """The plain data by file."""
    files = [path for path in checkpoint.glob("*.json") if path.name != "manifest.json"]
    return {path.name: json.loads(path.read_text()) for path in files}
