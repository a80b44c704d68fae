"""The report of a search, report.html: one page made from the files in its folder alone, in whatever state it ended.

The page needs no network: styles, scripts and drawings are inside. What the search never wrote is left out, and
the page says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from imagetune.core import run_files
from imagetune.reports.page import html_environment, write_page
from imagetune.search.report.bakeoff import view_bakeoff
from imagetune.search.report.importance import view_importance
from imagetune.search.report.overview import view_overview
from imagetune.search.report.parallel_coordinates import view_parallel_coordinates
from imagetune.search.report.progress import view_progress
from imagetune.search.report.sweep import view_sweep
from imagetune.search.report.timeline import view_timeline
from imagetune.search.report.trials import view_finalists, view_trials
from imagetune.search.results.reader import SearchFiles, read_search

# The template of each section, and the function that returns what it shows: None where the search has nothing of it.
SECTIONS: Mapping[str, Callable[[SearchFiles], Mapping[str, Any] | None]] = {
    "bakeoff": view_bakeoff,
    "sweep": view_sweep,
    "finalists": view_finalists,
    "progress": view_progress,
    "parallel": view_parallel_coordinates,
    "importance": view_importance,
    "timeline": view_timeline,
    "trials": view_trials,
}


def write_search_report(folder: Path) -> Path:
    """Write ``report.html`` into the folder of a search.

    Args:
        folder: In whatever state the search ended; only search.json and recipe.yaml have to be there.

    Returns:
        The file.

    Raises:
        ModelFileError: It is no search's folder, or a file in it is corrupted.
        RecipeError: Its recipe can't be read.
        CheckpointError: Its journal can't be read.
        ResourceError: The disk is full.
    """
    return write_page(folder / run_files.REPORT, render_search_report(read_search(folder)))


def render_search_report(search: SearchFiles) -> str:
    """Return the report of a search as HTML."""
    environment = html_environment("imagetune.search.report")
    found = {name: view for name, part in SECTIONS.items() if (view := part(search)) is not None}
    return environment.get_template("search.html.jinja").render(
        search=search,
        overview=view_overview(search),
        sections=[(f"{name}.html.jinja", view) for name, view in found.items()],
    )
