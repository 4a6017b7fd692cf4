"""A hook of MkDocs: links to files of the source, which the built pages do not hold, become text.

Where the Markdown itself is read they work.
"""

import posixpath
import re
from typing import Any

LINK = re.compile(r"(?<!!)\[((?:[^\[\]]|\[[^\]]*\])+)\]\((?![a-z][a-z+.-]*:|#)([^)\s]+)\)")
FENCE = re.compile(r"^( *`{3,}).*?^\1 *$", re.MULTILINE | re.DOTALL)


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """The page without links that leave docs/; what stands in fences stays as it is."""
    folder = posixpath.dirname(page.file.src_uri)

    def text(link: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(folder, link[2].partition("#")[0]))
        return link[1] if path.startswith("..") else link[0]

    pieces, done = [], 0
    for fence in FENCE.finditer(markdown):
        pieces += [LINK.sub(text, markdown[done : fence.start()]), fence[0]]
        done = fence.end()
    return "".join([*pieces, LINK.sub(text, markdown[done:])])
