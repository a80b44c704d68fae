"""The comparison of backbones in a bake-off as lines of text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from imagetune.cli.render.lines import format_line
from imagetune.cli.render.tables import format_table
from imagetune.core import run_files
from imagetune.core.text import format_count
from imagetune.recipe.metrics import name_metric
from imagetune.search.results.bakeoff import BackboneResult

_HEADS = ("interval", "ms alone", "ms in a batch", "MB")


def format_bakeoff(rows: Sequence[BackboneResult], objective: str, decides: str | None = None) -> Iterator[str]:
    """Yield a table of backbones: the metric of a linear probe, time and size, and the metric after fine-tuning.

    Args:
        rows: The result of ``baked``.
        objective: The validation metric.
        decides: Another metric to show beside it.
    """
    first = next((row.probe for row in rows if row.probe is not None), None)
    if first is not None:
        how = f"{first['confidence']:.0%} interval, {first['images']} images, none of them of the test split"
        yield format_line(
            "bake-off", f"{name_metric(objective)} of a linear probe, mean of {len(first['folds'])} folds, {how}"
        )
    more = [decides] if decides else []
    table = [("backbone", name_metric(objective), *_HEADS, *more, ""), *(_cells(row, more) for row in rows)]
    yield from format_table(table, align=f"<><>>>{'>' * len(more)}<")
    if any(row.front for row in rows):
        yield f"  (ms of one image; front: on the Pareto front of {name_metric(objective)}, time and size)"


def _cells(row: BackboneResult, more: Sequence[str]) -> tuple[str, ...]:
    if row.probe is None:
        name = row.result.trial.trial_id
        why = f"trial {name} has lost its {run_files.PROBE}" if row.lost else f"failed: trial {name}"
        value = f"{row.result.objective:.4f}" if row.lost else ""
        return (row.name, value, "", "", "", "", *("" for _ in more), _notes(why, _tuning(row)))
    cost = row.probe["cost"]
    return (
        row.name,
        f"{row.probe['value']:.4f}",
        "" if row.probe["low"] is None else f"[{row.probe['low']:.4f}, {row.probe['high']:.4f}]",
        f"{cost['milliseconds_one']['value']:.1f}",
        f"{cost['milliseconds_batch']['value']:.1f}",
        f"{cost['megabytes']:.1f}",
        *(f"{row.mean_of(name):.3f}" for name in more),
        _notes("front" if row.front else "", _tuning(row)),
    )


def _notes(*notes: str) -> str:
    return ", ".join(note for note in notes if note)


def _tuning(row: BackboneResult) -> str:
    """Return the metric of a backbone after fine-tuning; empty where it was not fine-tuned."""
    if row.tuned is not None:
        seeds = f" ({format_count(len(row.fine_tuned), 'seed')})" if len(row.fine_tuned) > 1 else ""
        return f"fine-tuned {row.tuned:.4f}{seeds}"
    return f"fine-tuning failed: {row.tuning_error}" if row.tuning_error else ""
