"""The sections of a page folded away under their headings, and the list of them that stands at its top.

It works on the page as it was rendered, so that no section, whatever template it comes from, is left out of the list.
"""

from __future__ import annotations

import re
from collections.abc import Collection

_SECTION = re.compile(r"<section>\s*<h2>(.*?)</h2>(.*?)</section>", re.DOTALL)
_LIST = "<!-- contents -->"
"""Where a template wants the list of its sections."""


def fold_sections(page: str, *, unfolded: Collection[str]) -> str:
    """Return a page whose sections have anchors and, but for those named, are closed until someone opens them.

    Args:
        page: HTML with sections that begin with their heading; others, such as notices, stay as they are. It has the
            comment ``contents`` where the list of the sections is to stand.
        unfolded: Headings of the sections that stay open, as they are written in HTML.
    """
    titles: list[str] = []

    def fold(found: re.Match[str]) -> str:
        title, body = found.groups()
        titles.append(title)
        anchor = f'<section id="section-{len(titles)}">'
        if title in unfolded:
            return f"{anchor}\n<h2>{title}</h2>{body}</section>"
        return f"{anchor}<details><summary><h2>{title}</h2></summary>{body}</details></section>"

    folded = _SECTION.sub(fold, page)
    items = "".join(f'<li><a href="#section-{number}">{title}</a></li>' for number, title in enumerate(titles, 1))
    return folded.replace(_LIST, f'<nav class="sections" aria-label="Contents"><ul>{items}</ul></nav>')
