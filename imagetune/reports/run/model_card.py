"""The model card, model_card.md: intended use, data, evaluation results and limitations (Mitchell et al. 2019).

What was measured comes from the run folder; what only people know, from the recipe's ``card`` section.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path

from jinja2 import Environment

from imagetune.core import run_files
from imagetune.core.text import escape_markdown, format_count
from imagetune.recipe.metrics import METRICS
from imagetune.reports.page import html_environment, write_page
from imagetune.reports.run.model_card_sentences import measured_sentences
from imagetune.reports.run.overview import count_images_per_split, describe_problem, list_run_facts, view_metric
from imagetune.run_folder.reader import SPLITS, RunFiles, read_run

UNSAID = "Not stated in the section card of the recipe."
# With fewer images, a 95% interval of an accuracy is wider than 0.3.
FEW = 30


def write_model_card(run_dir: Path) -> Path:
    """Write ``model_card.md`` into a run folder.

    Args:
        run_dir: A run folder in whatever state the run ended; only recipe.yaml has to be there.

    Returns:
        The file.

    Raises:
        ModelFileError: It is no run folder, or a file in it is corrupted.
        RecipeError: Its recipe can't be read.
        ResourceError: The disk is full.
    """
    return write_page(run_dir / run_files.MODEL_CARD, render_model_card(read_run(run_dir)))


@cache
def _markdown_environment() -> Environment:
    # Jinja knows no escaping of Markdown; every text that comes into the page goes through ours.
    return html_environment().overlay(autoescape=False, finalize=_escape)


def render_model_card(run: RunFiles) -> str:
    """Return the model card of a run as Markdown."""
    tested = run.tested_split
    image = run.recipe.data.image
    return (
        _markdown_environment()
        .get_template("model_card.md.jinja")
        .render(
            run=run,
            card=run.recipe.card,
            unsaid=UNSAID,
            problem=describe_problem(run),
            verdict=run.evaluation.get("verdict"),
            facts=list(list_run_facts(run)),
            classes=run.evaluation.get("class_names", ()),
            size=f"{image.height} x {image.width}",
            counts=count_images_per_split(run),
            findings=run.audit.get("findings", []),
            tested=tested,
            tested_name=SPLITS[run.tested_name],
            confidence=100 * run.evaluation.get("bootstrap", {}).get("confidence", 0.95),
            metrics=[view_metric(run, name) for name in METRICS if name in tested["metrics"]] if tested else [],
            per_class=tested.get("per_class", []) if tested else [],
            measured=list(measured_sentences(run.evaluation)),
            limits=list(_list_limits(run)),
        )
    )


def _list_limits(run: RunFiles) -> Iterator[str]:
    """Yield the limitations that follow from the evaluation itself."""
    tested = run.tested_split
    if tested is None:
        return
    if run.tested_name != "test":
        yield "No test images were held out: the metrics are those of validation, and optimistic."
    if few := [row["class"] for row in tested.get("per_class", []) if row["images"] < FEW]:
        yield (
            f"{format_count(len(few), 'class', 'classes')} with fewer than {FEW} {SPLITS[run.tested_name]} images: "
            f"metrics of {', '.join(few)} are uncertain."
        )
    yield "The metrics hold for images like the test images: same source, same cameras, same labelling."
    yield from (f"{note}." for note in tested.get("notes", []))


def _escape(value: object) -> object:
    return escape_markdown(value) if isinstance(value, str) else value
