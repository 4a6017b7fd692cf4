"""Sample sheets: rows of pictures with a label each, and the caption under every column."""

from collections.abc import Mapping, Sequence

from PIL.Image import Image
from torch import Tensor

from modules.pictures import Row, draw_sheet, to_image


def sheet(rows: Mapping[str, Tensor], captions: Sequence[str]) -> Image:
    """Draw a sheet. rows: label -> images [B, 3, H, W] in [0, 1], all with B pictures; captions: B texts.

    Rows may differ in size; smaller pictures are enlarged towards the largest.
    """
    drawn = [Row([to_image(image) for image in images], label=label) for label, images in rows.items()]
    return draw_sheet([*drawn[:-1], drawn[-1]._replace(captions=captions)])
