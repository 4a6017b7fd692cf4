"""Asking whether somebody agrees to the licences of what they are about to fetch."""

import sys
from collections.abc import Iterable, Sequence

from scripts.released.table import Licence, Released, licences


class NoConsentError(Exception):
    """Somebody does not agree, or cannot be asked."""


def check_accepted(names: Sequence[str]) -> None:
    """Raise ValueError for the name of a licence that there is not."""
    for name in names:
        if name not in licences():
            raise ValueError(f"--accept-licence: found {name!r}; expected one of: {', '.join(licences())}")


def ask_consent(entries: Iterable[Released], accepted: Sequence[str]) -> None:
    """Say the licences of the entries; ask for consent to those that want it. Raises NoConsentError."""
    for key in dict.fromkeys(entry.licence for entry in entries):
        licence = licences()[key]
        print(f"licence: {in_words(licence)}")
        if licence.ask and key not in accepted:
            _ask(licence)


def in_words(licence: Licence) -> str:
    """Name and address, and what it says in one line."""
    says = f" ({licence.says})" if licence.says else ""
    return f"{licence.name}{says}, {licence.url}"


def _ask(licence: Licence) -> None:
    if not sys.stdin.isatty():
        raise NoConsentError(
            f"the licence wants your consent: read {licence.url}, then add --accept-licence {licence.key}"
        )
    try:
        answer = input("Do you accept it? [y/N] ")
    except EOFError:  # Ctrl-D
        answer = ""
    if answer.strip().lower() not in ("y", "yes"):
        raise NoConsentError("the licence was not accepted; nothing was fetched")
