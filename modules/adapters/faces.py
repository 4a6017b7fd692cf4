"""Finding faces and telling whose they are, by insightface, an optional library.

Written for its version 2.1; it has not been run with its models, which were not at hand.
"""

from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

HOW_TO_GET = (
    "pip install insightface onnxruntime; then unpack its model pack buffalo_l and name the folder with the "
    ".onnx files"
)
DETECTION_PX = 640


class Faces(NamedTuple):
    """boxes: [N, 4], left, top, right, bottom in px. embeddings: [N, 512], unit length."""

    boxes: Tensor
    embeddings: Tensor


def check_face_finder(weights: str) -> None:
    """Raise, in one line, ValueError without the library, FileNotFoundError without its weights."""
    if not weights or not list(Path(weights).glob("*.onnx")):
        raise FileNotFoundError(f"identity filter: weights: no .onnx files in {weights!r}; {HOW_TO_GET}")
    load_library()


def load_library() -> Any:
    """The part of insightface that is used; ValueError when it is not installed."""
    try:
        from insightface.app import FaceAnalysis
    except ImportError as error:
        raise ValueError(f"the identity filter needs insightface ({error}); {HOW_TO_GET}") from error
    return FaceAnalysis


@lru_cache(maxsize=1)
def face_finder(weights: str) -> Any:
    """insightface's finder with the models of a folder; ValueError when they are not what it expects."""
    library = load_library()
    try:
        # Only the whole path of a folder that exists: insightface would fetch what it knows by name.
        finder = library(
            name=str(Path(weights).resolve(strict=True)),
            allowed_modules=["detection", "recognition"],
            providers=["CPUExecutionProvider"],
        )
        finder.prepare(ctx_id=-1, det_size=(DETECTION_PX, DETECTION_PX))
    except Exception as error:  # its runtime raises all kinds on files that it cannot use
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{weights}: not the models of a face finder ({reason}); {HOW_TO_GET}") from error
    return finder


def find_faces(image: Tensor, weights: str) -> Faces:
    """The faces of one picture [3, H, W] in [0, 1], the largest last."""
    pixels = (image.flip(0).clamp(0, 1) * 255).round().byte().permute(1, 2, 0)  # [H, W, BGR]
    found = face_finder(weights).get(pixels.contiguous().cpu().numpy())
    boxes = torch.tensor([face.bbox.tolist() for face in found]).view(-1, 4)
    embeddings = torch.tensor([face.normed_embedding.tolist() for face in found]).view(-1, 512)
    sizes = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    order = sizes.argsort()
    return Faces(boxes[order], embeddings[order])
