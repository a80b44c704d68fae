"""How every page of this room is drawn and written."""

from __future__ import annotations

from pathlib import Path

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

from imagetune.core.files import write_text


def html_environment(package: str = "imagetune.reports") -> Environment:
    """Return what draws HTML: all texts are escaped, and a name that is missing is an error.

    Args:
        package: Where templates are looked for before those of this room, whose styles and scripts serve all pages.
    """
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(package), PackageLoader("imagetune.reports")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = lambda share: f"{100 * share:.1f}%"
    return environment


def write_page(path: Path, text: str) -> Path:
    """Write a page and return its path.

    Raises:
        ResourceError: The disk is full.
    """
    # A path with bytes that are no UTF-8 is still a path; on the page it gets question marks.
    write_text(path, text.encode("utf-8", "replace").decode("utf-8"))
    return path
