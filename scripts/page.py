"""Pages of HTML that need no other file."""

import base64
import html
from collections.abc import Iterable, Sequence

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
img { max-width: 100%; height: auto; image-rendering: auto; border-radius: 4px }
table { border-collapse: collapse } td, th { padding: .25rem .9rem .25rem 0; text-align: left }
td + td, th + th { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }
h2 { margin-top: 2.5rem } figure { margin: 1rem 0 } figcaption { color: #666; font-size: .9rem }
"""


def page(title: str, parts: Iterable[str]) -> str:
    """A whole page: its title, and its parts in HTML."""
    name, body = html.escape(title), "\n".join(parts)
    head = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{name}</title><style>{STYLE}</style>'
    return f"{head}<h1>{name}</h1>{body}</html>\n"


def picture(png: bytes, caption: str) -> str:
    """A figure with the picture inside it."""
    data = base64.b64encode(png).decode()
    note = html.escape(caption)
    image = f'<img alt="{note}" src="data:image/png;base64,{data}">'
    return f"<figure>{image}<figcaption>{note}</figcaption></figure>"


def table(rows: Sequence[Sequence[str]], header: Sequence[str] = ()) -> str:
    """Rows of texts, of one length."""
    lines = [_row(row, "td") for row in rows]
    return f"<table>{_row(header, 'th') if header else ''}{''.join(lines)}</table>"


def _row(cells: Sequence[str], tag: str) -> str:
    return f"<tr>{''.join(f'<{tag}>{html.escape(cell)}</{tag}>' for cell in cells)}</tr>"
