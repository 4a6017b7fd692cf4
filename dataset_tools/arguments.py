"""Types of command line arguments, whose errors say what was expected."""

from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Callable
from math import isfinite

from dataset_tools.images import MAX_MEGAPIXELS


def whole_number(low: int, high: int | None = None) -> Callable[[str], int]:
    """Return an argparse type for a whole number from `low` to `high` (None: no upper limit)."""
    expected = f"a whole number of at least {low}" if high is None else f"a whole number from {low} to {high}"

    def parse(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = low - 1
        if number < low or (high is not None and number > high):
            raise ArgumentTypeError(f"expected {expected}, found {text!r}")
        return number

    return parse


def num_bytes(text: str) -> int:
    """Argparse type for a number of bytes: 1000000, 500K, 300M or 1.5G (powers of 1024)."""
    units = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
    unit = units.get(text[-1:].upper(), 1)
    try:
        number = float(text if unit == 1 else text[:-1]) * unit
    except ValueError:
        number = 0
    if not 1 <= number < 1 << 60:
        raise ArgumentTypeError(f"expected a size such as 500M or 2G, found {text!r}")
    return int(number)


def add_max_megapixels(parser: ArgumentParser) -> None:
    """Declare the limit of pictures' size, which the training has too."""
    parser.add_argument(
        "--max-megapixels",
        type=_positive,
        default=MAX_MEGAPIXELS,
        metavar="N",
        help="data.max_megapixels of the training: larger pictures are left out (default: %(default)g)",
    )


def _positive(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not isfinite(number) or number <= 0:
        raise ArgumentTypeError(f"expected a number above 0, found {text!r}")
    return number
