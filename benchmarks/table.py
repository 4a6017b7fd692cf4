"""The table and the plot of docs/performance.md, made of the results."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.plot import save_plot
from benchmarks.results import Results, met, read_all
from modules.whole_files import write_whole

BEGIN, END = "<!-- made by `python -m benchmarks table`, from here -->", "<!-- to here -->"
HEAD = "| what | against | ours | peer | floor | figure | target | |"
MARKS = {True: "met", False: "**missed**", None: ""}
UNITS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"))


def write_document(folder: Path, document: Path) -> None:
    """Put the table and the plot of a folder's results between the marks of a document.

    The plot goes to images/performance.png beside the document. ValueError when the marks are not there.
    """
    results, text = read_all(folder), document.read_text(encoding="utf-8")
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise ValueError(f"{document}: expected the lines {BEGIN!r} and {END!r} once each")
    picture = document.parent / "images" / "performance.png"
    has_plot = save_plot(results, picture)
    parts = ["![Seconds of ours over the peer's](images/performance.png)"] if has_plot else []
    parts += [section(each) for each in results]
    before, after = text.partition(BEGIN)[0], text.partition(END)[2]
    write_whole(document, "\n\n".join([before + BEGIN, *parts, END + after]))


def section(results: Results) -> str:
    """One machine's rows."""
    machine = results.machine
    title = machine.get("gpu") or f"{machine['processor']}, {machine['cores']} cores"
    lines = [f"### {title}"]
    if results.small:
        lines += ["", "**Tiny sizes: shows that the rows run, and measures nothing.**"]
    lines += ["", described(machine), "", HEAD, "| --- | --- | --- | --- | --- | --- | --- | --- |"]
    for row in results.rows.values():
        lines += table_lines(row, judged=not results.small)
    lines += ["", made(results)]
    return "\n".join(lines)


def described(machine: Mapping[str, Any]) -> str:
    """A machine in one line."""
    parts = [machine["processor"], f"{machine['cores']} cores ({', '.join(machine['flags'])})"]
    parts += [f"{machine['memory_gb']:.0f} GB"]
    if "gpu" in machine:
        gpu = f"{machine['gpu']} ({machine['gpu_memory_gb']:.0f} GB)"
        parts += [gpu, f"CUDA {machine['cuda']}", f"driver {machine['driver']}"]
    return ", ".join(parts) + "."


def made(results: Results) -> str:
    """When and of what the rows were made, and the rates measured beside them."""
    rows = list(results.rows.values())
    lines = []
    for key in dict.fromkeys((row["commit"], row["date"][:10]) for row in rows):
        names = [n for n, row in results.rows.items() if (row["commit"], row["date"][:10]) == key]
        every = "all rows" if len(names) == len(rows) else ", ".join(f"`{name}`" for name in names)
        lines.append(f"Commit {key[0] or 'unknown'}, {key[1]}: {every}.")
    packages = ", ".join(f"{name} {version}" for name, version in rows[-1]["versions"].items())
    rates = {name: sorted(row["rates"][name] for row in rows) for name in rows[0]["rates"]}
    spans = "; ".join(f"{name}: {number(s[0])} to {number(s[-1])}" for name, s in rates.items())
    return "\n".join([*lines, "", f"{packages}.", "", f"Measured beside the rows: {spans}."])


def table_lines(row: Mapping[str, Any], judged: bool = True) -> list[str]:
    """A row of results as lines of the table, one for each figure. judged: whether targets count."""
    found = row["found"]
    ours, peer = (fastest(found["timings"], side) for side in ("ours", "peer"))
    floor = seconds(found["facts"]["floor_s"]) if "floor_s" in found["facts"] else ""
    lines: list[str] = []
    for figure, value in found["figures"].items():
        first = [row["what"], row["peer"], ours, peer, floor] if not lines else [""] * 5
        shown = f"{figure.replace('_', ' ')} **{number(value)}**"
        mark = MARKS[met(row, figure)] if judged else ""
        lines.append("| " + " | ".join([*first, shown, wanted(row, figure), mark]) + " |")
    return lines


def wanted(row: Mapping[str, Any], figure: str) -> str:
    """A figure's target in words; "" where there is none."""
    target = row["targets"].get(figure)
    return "" if target is None else f"{target['bound']} {target['value']:g} {target['unit']}".rstrip()


def fastest(timings: Mapping[str, Mapping[str, float]], side: str) -> str:
    """The fastest variant of a side: its median and quartiles, and its name."""
    those = {name: t for name, t in timings.items() if name.startswith(f"{side}: ")}
    if not those:
        return ""
    name = min(those, key=lambda each: those[each]["median"])
    timing = those[name]
    spread = f"{seconds(timing['lower'])} to {seconds(timing['upper'])}"
    return f"{seconds(timing['median'])} ({spread}), {name.partition(': ')[2]}"


def seconds(value: float) -> str:
    """In the unit that suits."""
    unit, letters = next((u for u in UNITS if value >= u[0]), UNITS[-1])
    return f"{number(value / unit)} {letters}"


def line_of(row: Mapping[str, Any], judged: bool = True) -> str:
    """A row of results for the terminal."""
    found = row["found"]
    parts = [f"{side} {text}" for side in ("ours", "peer") if (text := fastest(found["timings"], side))]
    for figure, value in found["figures"].items():
        target = f" ({text})" if (text := wanted(row, figure)) else ""
        mark = MARKS[met(row, figure)].strip("*") if judged else ""
        parts.append(f"{figure} {number(value)}{target} {mark}".rstrip())
    return "; ".join(parts)


def number(value: float) -> str:
    """Three digits that matter."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:#.3g}".rstrip(".")
