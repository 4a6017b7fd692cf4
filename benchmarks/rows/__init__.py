"""The rows. Every module in this folder is loaded and adds its own with `benchmarks.frame.row`."""

import importlib
import pkgutil

from benchmarks.frame import ROWS, Row
from modules.schema import nearest


def all_rows() -> dict[str, Row]:
    """All rows by name, in the order of their modules' names."""
    for module in sorted(pkgutil.iter_modules(__path__), key=lambda each: each.name):
        importlib.import_module(f"{__name__}.{module.name}")
    return ROWS


def chosen(kind: str, names: str | None) -> list[Row]:
    """The rows of a kind, or those of the names (with commas between them). ValueError for another name."""
    rows = {name: row for name, row in all_rows().items() if row.kind == kind}
    if names is None:
        return list(rows.values())
    for name in names.split(","):
        if name not in rows:
            raise ValueError(f"--rows: no row {name!r} of kind {kind}; {nearest(name, rows)}")
    return [rows[name] for name in names.split(",")]
