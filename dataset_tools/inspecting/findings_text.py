"""The findings of `inspect` as lines for people."""

from typing import Any

from dataset_tools.inspecting.duplicates import MAX_COMPARED
from dataset_tools.inspecting.findings import LONG_CAPTION_WORDS

MAX_NAMED = 20
"""Lines of each list that are shown."""
MAX_IN_GROUP = 4
"""Names of each group of duplicates that are shown."""


def findings_text(found: dict[str, Any]) -> list[str]:
    """Write the findings as lines for people."""
    lines = [f"{found['samples']} usable samples in {found['shards']} shards, {_size(found['bytes'])}"]
    kinds = ", ".join(f"{count} {kind}" for kind, count in found["broken_kinds"].items())
    title = f"{len(found['broken'])} broken" + (f" ({kinds})" if kinds else "")
    lines += _named(title, [_broken_line(row) for row in found["broken"]])
    if not found["samples"]:
        return [*lines, "nothing to train on"]
    formats = ", ".join(f"{count} {ext}" for ext, count in found["formats"].items())
    lines += ["", f"formats: {formats}"]
    lines += [f"{name}: {_range(found[key], unit)}" for name, key, unit in _SPREADS]
    lines += ["", *_bucket_table(found["buckets"])]
    return [*lines, "", *_caption_lines(found), *_duplicate_lines(found)]


_SPREADS = (
    ("width", "width_px", " px"),
    ("height", "height_px", " px"),
    ("width / height", "aspect_ratio", ""),
)


def _range(spread: dict[str, float], unit: str = "") -> str:
    low, middle, high = (f"{spread[key]:.4g}" for key in ("min", "median", "max"))
    return f"{low} to {high}{unit}, half below {middle}"


def _bucket_table(rows: list[dict[str, Any]]) -> list[str]:
    lines = [f"{'bucket':>11} {'pictures':>9} {'cropped: mean':>14} {'most':>6} {'enlarged':>9} {'up to':>6}"]
    for row in rows:
        size = f"{row['width_px']}x{row['height_px']}"
        cropped = f"{row['mean_cropped']:>14.1%} {row['max_cropped']:>6.1%}"
        scale = f"{row['max_scale']:.2f}x" if row["enlarged"] else ""
        lines.append(f"{size:>11} {row['pictures']:>9} {cropped} {row['enlarged']:>9} {scale:>6}".rstrip())
    return lines


def _caption_lines(found: dict[str, Any]) -> list[str]:
    captions = found["captions"]
    total = found["samples"] - captions["missing"] - captions["empty"]
    absent = f"{captions['missing']} missing, {captions['empty']} empty"
    lines = [f"captions: {total}, {captions['different']} different; {absent}"]
    if captions["words"]:
        lines.append(f"words: {_range(captions['words'])}")
    if captions["long"]:
        lines.append(
            f"{captions['long']} have more than {LONG_CAPTION_WORDS} words; their end may be cut off"
        )
    return lines


_DUPLICATES = {
    "keys": "keys used more than once",
    "identical": "pictures that are there more than once",
    "similar": "groups of pictures that look alike",
}


def _duplicate_lines(found: dict[str, Any]) -> list[str]:
    lines = []
    for kind, title in _DUPLICATES.items():
        groups = found["duplicates"][kind]
        lines += _named(f"{len(groups)} {title}", [_group_line(group) for group in groups])
    if found["samples"] > MAX_COMPARED:
        lines.append(f"(of more than {MAX_COMPARED} pictures, only those of equal signature look alike)")
    return lines


def _group_line(group: list[str]) -> str:
    more = f"  and {len(group) - MAX_IN_GROUP} more" if len(group) > MAX_IN_GROUP else ""
    return "  ".join(group[:MAX_IN_GROUP]) + more


def _named(title: str, rows: list[str]) -> list[str]:
    """Write a title and, below it, as many rows as are worth reading."""
    more = [f"  and {len(rows) - MAX_NAMED} more; --json lists all"] if len(rows) > MAX_NAMED else []
    return [title + (":" if rows else ""), *(f"  {row}" for row in rows[:MAX_NAMED]), *more]


def _broken_line(row: dict[str, str]) -> str:
    return f"{row['shard']}{':' if row['key'] else ''}{row['key']}: {row['reason']}"


def _size(num_bytes: float) -> str:
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if num_bytes < 1024:
            return f"{num_bytes:.4g} {unit}"
        num_bytes /= 1024
    return f"{num_bytes:.4g} TiB"
