"""Words about a name that is not known."""

from collections.abc import Iterable
from difflib import get_close_matches


def nearest(name: object, valid: Iterable[str]) -> str:
    """The end of a message about a wrong name: the valid name that it probably means, or all of them."""
    names = list(valid)
    if close := get_close_matches(str(name), names, n=1, cutoff=0.5):
        return f"did you mean {close[0]!r}?"
    return f"expected one of: {', '.join(names) or 'nothing'}"
