"""The sections of a model card that are tables: data, settings, course, figures."""

import json
from datetime import datetime
from pathlib import Path

from train.reports.card_names import called, code, escaped
from train.reports.card_run import Run, number, plain, sources, table
from train.reports.progress import duration
from train.reports.record import flat

# Settings that say most of a run; all of them are in config.yaml.
TOLD = ("recipe", "gdf", "optim", "run.num_steps", "run.num_accum", "run.precision", "run.seed", "run.ema")
TOLD_OF_DATA = (
    "image_size_px",
    "batch_size",
    "aspect_ratios",
    "flip",
    "crop",
    "caption",
    "epochs",
    "filters",
)
OF_THE_COURSE = ("samples_per_second", "data_wait_share", "checkpoint_", "learning_rate", "skipped_steps")
STAGES = ("stage_a", "stage_b", "stage_c")
MOST_FIGURES = 40  # of an evaluation report


def data(run: Run) -> str:
    """Where the pictures were from, how many, and what was left out."""
    taken = run.last.get("samples_of_sources") or {}
    by_name = {called(name): count for name, count in taken.items()}
    rows = run.rows()
    parts = [
        table(
            ("source", "weight", "pictures taken"),
            [
                (name, weight, number(by_name[name]) if name in by_name else "")
                for name, weight in sources(run)
            ],
        )
    ]
    if rows and "samples" in rows[-1]:
        parts.append(f"Pictures seen, repeats counted: {number(rows[-1]['samples'])}.")
    left_out = run.last.get("left_out") or {}
    told = table(("left out", "number"), [(kind, number(count)) for kind, count in left_out.items()])
    parts.append(told if left_out else "Nothing was left out.")
    return "\n\n".join(parts)


def settings(run: Run) -> list[tuple[str, str]]:
    """Those that matter, by dotted key."""
    values = dict(flat(run.config))
    kept = [key for key in values if key.startswith(TOLD)]
    kept += [f"data.{key}" for key in TOLD_OF_DATA if values.get(f"data.{key}") not in (None, [])]
    return [(f"`{key}`", plain(values[key])) for key in kept if values[key] not in (None, [], {})]


def course(run: Run) -> list[tuple[str, str]]:
    """On what, how long, with which versions."""
    seconds = sum(start.get("seconds") or 0 for start in run.starts)
    places = sorted({f"{s['processes']} × {s.get('hardware') or s['device']}" for s in run.starts})
    versions = ", ".join(f"{name} {version}" for name, version in run.last["versions"].items())
    told = [
        ("hardware", "; ".join(places)),
        ("time", f"{duration(seconds)} in {len(run.starts)} start{'s' * (len(run.starts) > 1)}"),
        ("ended", str(run.last.get("ended", "not yet"))[:10]),
        ("commit of Kaskade", run.last.get("commit") or "not known"),
        ("versions", f"Python {run.last['python']}, {versions}"),
    ]
    rows = run.rows()
    if rows and "samples_per_second" in rows[-1]:
        told.insert(2, ("pictures per second", f"{rows[-1]['samples_per_second']:.3g}"))
    return [(name, escaped(value)) for name, value in told]


def figures(run: Run) -> str:
    """First and last report, and an evaluation report that lies there."""
    rows = run.rows()
    if not rows:
        return "No metrics were kept."
    first, last = rows[0], rows[-1]
    names = [name for name in last if name not in ("step", "samples") and not skipped(name)]
    lines = [(f"`{name}`", number(first.get(name)), number(last[name])) for name in names]
    head = ("metric", f"step {first['step']:g}", f"step {last['step']:g}")
    parts = [table(head, lines)]
    if any("loss_log_snr_" in name for name in names):
        parts.append("`loss_log_snr_N`: the unweighted loss at log-SNRs about N; large N is little noise.")
    if found := evaluation(run):
        parts.append(
            "Of the evaluation report, which is on the whole cascade:\n\n" + table(("figure", "value"), found)
        )
    return "\n\n".join(parts)


def skipped(name: str) -> bool:
    return name.split("/")[-1].startswith(OF_THE_COURSE)


def evaluation(run: Run) -> list[tuple[str, str]]:
    """The numbers of report.json, of the run or of the cascade that it is a stage of.

    One from before the end of the training is of other weights than these.
    """
    of_cascade = [run.folder.parent / "report.json"] if run.recipe in STAGES else []
    for path in (run.folder / "report.json", *of_cascade):
        if path.is_file() and is_later(path, run):
            report = json.loads(path.read_text(encoding="utf-8"))
            found = {k: v for k, v in report.items() if k not in ("settings", "seconds")}
            numbers = [
                (k, v) for k, v in flat(found) if isinstance(v, int | float) and not isinstance(v, bool)
            ]
            return [(code(key), number(value)) for key, value in numbers[:MOST_FIGURES]]
    return []


def is_later(path: Path, run: Run) -> bool:
    """Whether a file was written after the run's last start ended."""
    ended = run.last.get("ended")
    return ended is None or path.stat().st_mtime >= datetime.fromisoformat(ended).timestamp()
