"""Errors that begin with the setting they are about."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def naming(setting: str) -> Iterator[None]:
    """Put the setting before the message of a ValueError or FileNotFoundError."""
    try:
        yield
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{setting}: {error}") from None
    except ValueError as error:
        raise ValueError(f"{setting}: {error}") from None
