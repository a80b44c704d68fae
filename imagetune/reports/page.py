"""HTML pages: the one Jinja environment that renders them, with its filters, and the writing of a page."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined, TemplateRuntimeError, UndefinedError
from jinja2.utils import missing

from imagetune.core.files import write_text
from imagetune.evaluation.comparison.document import format_p_value
from imagetune.recipe.metrics import METRICS, format_metric_value, format_number


class _MissingError(UndefinedError, LookupError):
    """A value that a template shows is missing: a `LookupError`, as it would be in code."""


class _Missing(StrictUndefined):
    """A missing value in a template."""

    def __init__(
        self,
        hint: str | None = None,
        obj: Any = missing,
        name: str | None = None,
        exc: type[TemplateRuntimeError] = _MissingError,
    ) -> None:
        # Jinja states its own kind of error in places.
        super().__init__(hint, obj, name, _MissingError if exc is UndefinedError else exc)


# Cached, as it keeps the templates that it has compiled: folds and trials have a page each.
@cache
def html_environment(*packages: str) -> Environment:
    """Return the Jinja environment of all pages: texts are escaped, and an undefined name is an error.

    Its filters are ``number`` (three digits), ``measure`` (a value in the way of its metric), ``signed`` (a difference
    of a metric), ``percent`` (of a share) and ``p`` (a p-value).

    Args:
        packages: Packages whose ``templates`` come before those of `imagetune.reports`, which hold the stylesheet and
            the script of all pages.
    """
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(package) for package in (*packages, "imagetune.reports")]),
        autoescape=True,
        undefined=_Missing,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": format_number,
        "measure": format_metric_value,
        "signed": _format_difference,
        "percent": lambda share: f"{100 * share:.1f}%",
        "p": format_p_value,
    }
    return environment


def write_page(path: Path, text: str) -> Path:
    """Write a page and return its path.

    Raises:
        ResourceError: The disk is full.
    """
    # A path with bytes that are no UTF-8 is still a path; on the page it gets question marks.
    write_text(path, text.encode("utf-8", "replace").decode("utf-8"))
    return path


def _format_difference(value: float | None, name: str) -> str:
    """Return a difference of a metric with its sign, in percentage points where the metric is a share."""
    if value is None:
        return "-"
    # Adding 0.0 turns -0.0 into 0.0: no difference has no sign but plus.
    if METRICS[name].is_share:
        return f"{round(100 * value, 1) + 0.0:+.1f}"
    return f"{value + 0.0:+.3g}" if METRICS[name].has_units else f"{round(value, 3) + 0.0:+.3f}"
