"""Win rates as a plot, a page and report.json."""

import json
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from inference.compare.plan import Plan
from inference.compare.rates import METHOD, Rate, as_plain, rates
from inference.compare.votes import Ballot, Vote
from modules.whole_files import write_whole

TITLES = {"alignment": "Fits the prompt", "looks": "Looks"}
WIDTH, LABELS, NUMBERS, ROW, TOP, GAP = 860, 210, 190, 30, 46, 34
MANY = "Several categories are several tests: of twenty with no difference one shows one."
STYLE = Path(__file__).with_name("report.css")


def write_report(folder: Path, plan: Plan, votes: list[Vote]) -> dict[str, Any]:
    """Write report.json, report.svg and report.html into the comparison's folder; returns the first."""
    plain = as_plain(plan, votes)
    found = rates(plan, votes)
    write_whole(folder / "report.json", json.dumps(plain, indent=1, ensure_ascii=False))
    write_whole(folder / "report.svg", plot(found, own_colours=True))
    write_whole(folder / "report.html", alone(plan, body(plan, found, plain)))
    return plain


def alone(plan: Plan, drawn: str) -> str:
    """A report as a page of its own, which needs no other file."""
    title = escape(f"{plan.sides[0]} beside {plan.sides[1]}")
    style = STYLE.read_text(encoding="utf-8")
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width"><title>{title}</title>'
        f'<style>{style}</style></head><body class="c-alone">{drawn}</body></html>\n'
    )


def of_folder(folder: Path, plan: Plan) -> str:
    """The report as it is now, as part of a page."""
    votes = Ballot(folder, plan).votes()
    return body(plan, rates(plan, votes), as_plain(plan, votes))


def body(plan: Plan, found: Mapping[str, Mapping[str, Rate]], plain: Mapping[str, Any]) -> str:
    """Words, plot and tables."""
    a, b = (escape(side) for side in plan.sides)
    verdicts = "".join(f"<p><b>{TITLES[aspect]}:</b> {verdict(of[''])}</p>" for aspect, of in found.items())
    voters = ", ".join(f"{escape(name)} {number}" for name, number in plain["voters"].items()) or "nobody yet"
    left = plain["left_chosen"]
    habit = "" if left is None else f" Of the decided votes {left:.0%} were for the picture on the left."
    tables = "".join(f"<h2>{TITLES[aspect]}</h2>{_table(of)}" for aspect, of in found.items())
    return (
        f'<div class="c-report"><h1>Which is preferred?</h1><div class="c-sides"><b>A</b><code>{a}</code>'
        f'<b>B</b><code>{b}</code></div>{verdicts}<div class="c-plot">{plot(found)}</div>{tables}'
        f'<h2>How it was counted</h2><p class="c-small">{METHOD} {MANY}</p>'
        f'<p class="c-small">{len(plan.questions)} pairs; votes by {voters}.{habit}</p></div>'
    )


def verdict(rate: Rate) -> str:
    """What the votes show, in a sentence."""
    if not rate.votes:
        return "no votes yet."
    range_ = f"A is preferred in {rate.rate:.0%} ({rate.low:.0%} to {rate.high:.0%}) of {rate.votes} votes"
    end = f"{rate.winner} is better." if rate.winner else "the votes do not show which is better."
    return f"{range_} on {rate.prompts} prompts: {end}"


def _table(of: Mapping[str, Rate]) -> str:
    heads = ("", "prompts", "votes", "A", "tie", "B", "A preferred", "95 %")
    rows = [
        (
            escape(name) or "all",
            str(rate.prompts),
            str(rate.votes),
            str(rate.wins_a),
            str(rate.ties),
            str(rate.wins_b),
            f"{rate.rate:.1%}" if rate.votes else "–",
            f"{rate.low:.1%} – {rate.high:.1%}" if rate.votes else "–",
        )
        for name, rate in of.items()
    ]
    top = "".join(f"<th>{head}</th>" for head in heads)
    lines = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="c-table"><table><thead><tr>{top}</tr></thead><tbody>{lines}</tbody></table></div>'


def plot(found: Mapping[str, Mapping[str, Rate]], own_colours: bool = False) -> str:
    """A's rate with its interval for each aspect and category, as SVG.

    own_colours: for a file of its own, on white; else the page's.
    """
    rows: list[str] = []
    y = TOP
    for aspect, of in found.items():
        rows.append(f'<text x="0" y="{y - 14}" class="t">{TITLES[aspect]}</text>')
        for name, rate in of.items():
            rows.append(_row(name or "all", rate, y + ROW / 2))
            y += ROW
        y += GAP + 12
    height = y - GAP
    marks = "".join(
        f'<path d="M{_x(share):.1f} {TOP - 8}V{height - 18}" class="{"m" if share == 0.5 else "g"}"/>'
        f'<text x="{_x(share):.1f}" y="{height}" class="n" text-anchor="middle">{share:.0%}</text>'
        for share in (0, 0.25, 0.5, 0.75, 1)
    )
    colours = (
        "svg{--a:#1f6f9f;--b:#c8553d;--tie:#8d9693;color:#191e1d;background:#fff;font-family:sans-serif}"
        if own_colours
        else ""
    )
    style = (
        f"{colours}.t{{font-weight:600;font-size:15px;fill:currentColor}}.n{{font-size:13px;fill:currentColor;"
        "opacity:.8}.g,.m{stroke:currentColor;opacity:.15}.m{opacity:.6;stroke-dasharray:3 3}"
    )
    ends = (
        f'<text x="{_x(0):.1f}" y="{TOP - 14}" class="n">B better</text>'
        f'<text x="{_x(1):.1f}" y="{TOP - 14}" class="n" text-anchor="end">A better</text>'
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="-8 0 {WIDTH + 16} {height + 12}" role="img"'
        f' aria-label="How often A was preferred, with 95 % intervals"><style>{style}</style>{marks}{ends}'
        f"{''.join(rows)}</svg>"
    )


def _x(share: float) -> float:
    return LABELS + share * (WIDTH - LABELS - NUMBERS)


def _row(name: str, rate: Rate, y: float) -> str:
    label = f'<text x="0" y="{y + 4}" class="n">{escape(name[:28])}</text>'
    if not rate.votes:
        return f'{label}<text x="{_x(0.5):.1f}" y="{y + 4}" class="n" text-anchor="middle">no votes</text>'
    colour = {"A": "var(--a)", "B": "var(--b)", "": "var(--tie)"}[rate.winner]
    words = f"{rate.rate:.0%}  [{rate.low:.0%}, {rate.high:.0%}]  n={rate.votes}"
    return (
        f'{label}<path d="M{_x(rate.low):.1f} {y}H{_x(rate.high):.1f}" stroke="{colour}" stroke-width="4"'
        f' stroke-linecap="round"/><circle cx="{_x(rate.rate):.1f}" cy="{y}" r="6" fill="{colour}"/>'
        f'<text x="{WIDTH}" y="{y + 4}" class="n" text-anchor="end">{words}</text>'
    )
