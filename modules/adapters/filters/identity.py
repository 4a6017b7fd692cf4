"""Whose faces a picture shows, and where: face embeddings on a coarse grid."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from modules.adapters.faces import Faces, check_face_finder, find_faces
from modules.adapters.filters import ControlFilter, Generators
from modules.adapters.pixels import uniform
from modules.schema import bounded

CELL_PX = 32
EMBEDDING_CHANNELS = 512
COLOURS = ((1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (1, 0, 1), (0, 1, 1))


@dataclass
class Identity(ControlFilter):
    """Face embeddings [B, 512, H / 32, W / 32], zero where there is no face.

    weights: folder with the .onnx files of insightface's model pack. drop: chance that a face is left out.
    full: chance that a picture's largest face is said of the whole picture, so that its place stays open.
    """

    weights: str = ""
    drop: float = bounded(0.0, least=0, most=1)
    full: float = bounded(0.0, least=0, most=1)
    channels = EMBEDDING_CHANNELS
    in_workers = False  # embeddings do not fit into eight bits

    def __post_init__(self) -> None:
        check_face_finder(self.weights)

    def __call__(self, images: Tensor, generators: Generators) -> Tensor:
        faces = [
            self._varied(find_faces(image, self.weights), tuple(image.shape[-2:]), generator)
            for image, generator in zip(images, generators, strict=True)
        ]
        return face_grid(faces, images.shape[-2:]).to(images.device)

    def preview(self, images: Tensor) -> Tensor:
        return face_preview(images, [find_faces(image, self.weights) for image in images])

    def _varied(self, faces: Faces, size: Sequence[int], generator: torch.Generator) -> Faces:
        """Some of the faces of one picture, or the largest everywhere."""
        full = uniform(generator) < self.full
        kept = torch.rand(len(faces.boxes), generator=generator) >= self.drop
        boxes, embeddings = faces.boxes[kept], faces.embeddings[kept]
        if not full:
            return Faces(boxes, embeddings)
        everywhere = torch.tensor([[0.0, 0.0, size[1], size[0]]])
        return Faces(everywhere[: len(boxes)], embeddings[-1:])


def face_cells(boxes: Tensor) -> list[tuple[slice, slice]]:
    """Rows and columns of the grid that each box [N, 4] in px covers: whole cells, one at least."""
    edges = (boxes.clamp(min=0) / CELL_PX).round().long().tolist()
    return [
        (slice(top, max(bottom, top + 1)), slice(left, max(right, left + 1)))
        for left, top, right, bottom in edges
    ]


def face_grid(faces: Sequence[Faces], size_px: Sequence[int]) -> Tensor:
    """Embeddings of each picture's faces on its grid, later ones over earlier ones; [B, 512, h, w]."""
    height, width = (side // CELL_PX for side in size_px)
    grid = torch.zeros(len(faces), EMBEDDING_CHANNELS, height, width)
    for picture, found in zip(grid, faces, strict=True):
        for (rows, columns), embedding in zip(face_cells(found.boxes), found.embeddings, strict=True):
            picture[:, rows, columns] = embedding[:, None, None]
    return grid


def face_preview(images: Tensor, faces: Sequence[Faces]) -> Tensor:
    """Pictures [B, 3, H, W] in [0, 1] with the cells of their faces tinted, one colour after the other."""
    shown = images.clone()
    for picture, found in zip(shown, faces, strict=True):
        original = picture.clone()
        for number, cells in enumerate(face_cells(found.boxes)):
            colour = picture.new_tensor(COLOURS[number % len(COLOURS)])[:, None, None]
            rows, columns = (slice(part.start * CELL_PX, part.stop * CELL_PX) for part in cells)
            picture[:, rows, columns] = (original[:, rows, columns] + colour) / 2
    return shown
