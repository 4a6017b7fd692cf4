"""A hook of MkDocs: browsers part words at hyphens; the options in commands (`--gpus`) stay whole.

Their hyphens cannot be exchanged for others, as commands are copied.
"""

import re
from typing import Any

CODE = re.compile(r"<code\b.*?</code>", re.DOTALL)
TEXT = re.compile(r"(?<=>)[^<]+")
OPTION = re.compile(r"(?<![\w/-])--?[a-z][a-z-]{0,30}\b")  # longer ones would not fit a phone


def on_page_content(html: str, **_: Any) -> str:
    """The page with every option in code in a span of its own, which the stylesheet keeps on one line."""
    return CODE.sub(lambda code: TEXT.sub(_marked, code[0]), html)


def _marked(text: re.Match[str]) -> str:
    return OPTION.sub(r'<span class="whole">\g<0></span>', text[0])
