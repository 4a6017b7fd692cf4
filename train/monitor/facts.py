"""What is told of runs in words and tables: how far they are, their data, starts and settings."""

import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from html import escape
from typing import Any

from dataset_tools.kinds import Kind
from modules.schema import shown
from train.monitor.charts import swatch
from train.monitor.draw.axes import short
from train.monitor.progress import Progress, progress_of
from train.monitor.runs import Run
from train.reports.progress import duration
from train.reports.record import flat

MOST_ROWS = 400
LONGEST = 300  # letters of a value


def head(runs: Sequence[Run], now: float) -> str:
    """One block for each run: its state, how far it is, time left, speed, loss."""
    return (
        '<div class="m-heads">'
        + "".join(_head(run, i, len(runs), now) for i, run in enumerate(runs))
        + "</div>"
    )


def _head(run: Run, index: int, count: int, now: float) -> str:
    progress = progress_of(run, now)
    name = swatch(index, run.name) if count > 1 else f"<b>{escape(run.name)}</b>"
    state = f'<span class="m-state m-{progress.state}">{progress.state}</span>'
    told = "" if progress.told in (progress.state, "running") else escape(_cut(progress.told))
    share = min(1.0, progress.step / progress.num_steps) if progress.num_steps else 0.0
    bar = (
        f'<div class="m-bar" role="progressbar" aria-valuenow="{100 * share:.0f}" aria-valuemin="0"'
        f' aria-valuemax="100" aria-label="{escape(run.name)}"><i style="width:{100 * share:.1f}%"></i></div>'
    )
    facts = "".join(
        f"<div><dt>{key}</dt><dd>{value}</dd></div>" for key, value in _figures(run, progress, now)
    )
    told = f'<p class="m-told">{told}</p>' if told else ""
    problems = "".join(f'<p class="m-problem">{escape(_cut(problem))}</p>' for problem in run.problems)
    figures = f'<dl class="figures">{facts}</dl>'
    return f'<section class="m-head"><header>{name}{state}</header>{told}{bar}{figures}{problems}</section>'


def _figures(run: Run, progress: Progress, now: float) -> Iterator[tuple[str, str]]:
    of = f" of {progress.num_steps:,}" if progress.num_steps else ""
    yield "step", f"{progress.step:,}{of}"
    if math.isfinite(progress.seconds_left):
        yield "time left", f"about {duration(progress.seconds_left)}"
    if progress.seconds:
        yield "time spent", duration(progress.seconds)
    if math.isfinite(progress.samples_per_second):
        yield "samples/s", short(progress.samples_per_second)
    wait = run.table.newest("data_wait_share")
    if math.isfinite(wait):
        yield "waiting for data", f"{100 * wait:.1f} %"
    for name in run.table.columns:
        if name.rpartition("/")[2] == "loss" and math.isfinite(value := run.table.newest(name)):
            yield name.replace("/", " "), short(value)
    if progress.state in ("running", "silent") and run.written:
        yield "last report", f"{duration(max(0.0, now - run.written))} ago"


def health(runs: Sequence[Run]) -> str:
    """What of the data was left out and why, what each source gave, which steps were skipped."""
    return "".join(_health(run, i, len(runs)) for i, run in enumerate(runs))


def _health(run: Run, index: int, count: int) -> str:
    name = f"<p>{swatch(index, run.name)}</p>" if count > 1 else ""
    told = next((start for start in reversed(run.starts) if "left_out" in start), None)
    skipped = run.table.newest("skipped_steps")
    samples = run.table.newest("samples")
    lines = []
    if math.isfinite(samples):
        lines.append(f"<p>{int(samples):,} samples learnt from.</p>")
    if math.isfinite(skipped):
        lines.append(f"<p>{_steps_skipped(int(skipped))}</p>")
    if told is None:
        kept = "Of what was left out run.json tells when a training ends or is stopped."
        lines.append(f'<p class="quiet">{kept}</p>')
    else:
        lines.append(_left_out(told.get("left_out")))
        lines.append(_sources(told.get("samples_of_sources")))
        if "counts_of" in told:
            lines.append(f'<p class="quiet">Counts of {escape(str(told["counts_of"]))}.</p>')
    return name + "".join(lines)


def _steps_skipped(number: int) -> str:
    if not number:
        return "No step was skipped: all losses and gradients were finite."
    return (
        f'<b class="m-bad">{number:,} step{"s" * (number > 1)} skipped</b>: loss or gradient was not finite.'
    )


def _left_out(counts: Any) -> str:
    if not isinstance(counts, Mapping) or not counts:
        return "<p>Nothing was left out of the data.</p>"
    meanings = {kind.value: kind.meaning for kind in Kind}
    rows = [
        (escape(str(kind)), _number(number), escape(meanings.get(str(kind), "").replace("`", "")))
        for kind, number in sorted(counts.items(), key=lambda item: -_size(item[1]))
    ]
    return table(("left out", "samples", "what that is"), rows)


def _sources(counts: Any) -> str:
    if not isinstance(counts, Mapping) or not counts:
        return ""
    total = sum(map(_size, counts.values())) or 1.0
    rows = [
        (
            escape(str(name)),
            _number(number),
            f'<i class="m-share" style="width:{_size(number) / total:.0%}"></i>',
        )
        for name, number in counts.items()
    ]
    return table(("source", "samples", "share"), rows)


def _size(value: Any) -> float:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else 0.0


def _number(value: Any) -> str:
    return f"{int(_size(value)):,}"


def starts(runs: Sequence[Run]) -> str:
    """Every start of each run, the newest first."""
    rows = []
    for index, run in enumerate(runs):
        name = [swatch(index, run.name)] if len(runs) > 1 else []
        for start in reversed(run.starts):
            seconds = _size(start.get("seconds"))
            rows.append(
                (
                    *name,
                    _time(start.get("started")),
                    _text(start.get("from_step", "")),
                    duration(seconds) if seconds else "",
                    _ending(start),
                    f"{_text(start.get('processes', ''))} × {_text(start.get('device', ''))}",
                    f"<code>{_text(start.get('commit') or '')[:10]}</code>",
                )
            )
    named = ("run",) if len(runs) > 1 else ()
    heads = (*named, "started", "from step", "took", "ended", "on", "commit")
    return table(heads, rows[:MOST_ROWS]) if rows else '<p class="quiet">No start is recorded yet.</p>'


def _ending(start: Mapping[str, Any]) -> str:
    if "error" in start:
        return f'<span class="m-bad">{_text(start["error"])}</span>'
    if "ended" not in start:
        return "not yet, or killed"
    return f"{'stopped' if start.get('interrupted') else 'complete'}, step {_text(start.get('step', '?'))}"


def settings(runs: Sequence[Run]) -> str:
    """All settings of one run; of several, those in which they differ."""
    plain = [dict(flat(run.settings)) for run in runs]
    keys = list(dict.fromkeys(key for each in plain for key in each))
    if len(runs) > 1:
        keys = [key for key in keys if len({str(each.get(key)) for each in plain}) > 1]
    if not keys:
        return (
            f'<p class="quiet">{"The settings do not differ." if len(runs) > 1 else "No settings yet."}</p>'
        )
    rows = [
        (
            f"<code>{_text(key)}</code>",
            *(f"<code>{_text(shown(each[key])) if key in each else '–'}</code>" for each in plain),
        )
        for key in keys[:MOST_ROWS]
    ]
    names = [swatch(i, run.name) for i, run in enumerate(runs)] if len(runs) > 1 else ["value"]
    drawn = table(("setting", *names), rows)
    if len(runs) > 1:
        return drawn
    return f"<details><summary>All {len(rows)} settings</summary>{drawn}</details>"


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """HTML of a table; its cells are HTML already."""
    top = "".join(f"<th>{each}</th>" for each in heads)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="m-table"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def _text(value: Any) -> str:
    return escape(_cut(str(value)))


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else text[:LONGEST] + " …"


def _time(value: Any) -> str:
    try:
        return datetime.fromisoformat(str(value)).strftime("%Y-%m-%d %H:%M")
    except ValueError:
        return _text(value)
