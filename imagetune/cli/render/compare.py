"""The comparison of runs as lines of text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from imagetune.cli.render.lines import format_line
from imagetune.cli.render.tables import format_table
from imagetune.data.sources.labels import LabelRule
from imagetune.evaluation.comparison.document import format_p_value
from imagetune.recipe.metrics import METRICS, format_metric_value

# What a screen has room for; --json and --page show all.
_MAX_CLASSES = 10
_MAX_PATHS = 5


def format_comparison(document: Mapping[str, Any]) -> Iterator[str]:
    """Yield the runs, their metrics with significance tests, the classes and images that differ, and the verdict."""
    for run in document["runs"]:
        yield format_line(run["key"], f"{run['run']} ({run['recipe']}, {run['backbone']})")
    groups = f" in {document['groups']} groups" if document["groups"] else ""
    yield format_line("images", f"{document['images']} test images{groups}, matched by {document['matched_by']}")
    if len(document["pairs"]) == 1:
        yield from _pair_lines(document, document["pairs"][0])
    else:
        yield from _runs_lines(document)
        yield from _matrix_lines(document)
    yield from _differing_lines(document["differing"], LabelRule(document["task"]))
    yield format_line("verdict", document["verdict"]["text"])
    yield from (format_line("note", note) for note in document["notes"])


def _pair_lines(document: Mapping[str, Any], pair: Mapping[str, Any]) -> Iterator[str]:
    one, other = pair["first"], pair["second"]
    level = f"{100 * document['confidence']:g}% interval"
    rows = [("", one, other, f"{one} - {other}", level, "")]
    for name, metric in pair["metrics"].items():
        difference = metric["difference"]
        ahead = f"{metric['ahead']} ahead" if metric["ahead"] else ""
        values = (format_metric_value(metric["first"], name), format_metric_value(metric["second"], name))
        rows.append(
            (METRICS[name].in_words, *values, _signed(difference["value"], name), _interval(difference, name), ahead)
        )
    yield from format_table(rows)
    test = f"{pair['test']['method']} {format_p_value(pair['test']['corrected'])}"
    yield format_line("test", f"{METRICS[document['metric']].in_words}: {test}")
    yield from _churn_lines(document, pair)
    yield from _class_lines(document, pair)


def _churn_lines(document: Mapping[str, Any], pair: Mapping[str, Any]) -> Iterator[str]:
    churn, one, other = pair["churn"], pair["first"], pair["second"]
    if "changed" not in churn:
        yield format_line(
            "predictions",
            f"{churn['mean_change']:.4g} apart on average; {one} is closer on {churn['first_closer']}, "
            f"{other} on {churn['second_closer']} images",
        )
        return
    yield format_line(
        "predictions",
        f"{churn['changed']} of {document['images']} change from {one} to {other} "
        f"({100 * churn['share']['value']:.1f}%): {churn['right_to_wrong']} right -> wrong, "
        f"{churn['wrong_to_right']} wrong -> right",
    )


def _class_lines(document: Mapping[str, Any], pair: Mapping[str, Any]) -> Iterator[str]:
    """Yield a table of the classes whose metric differs between two runs, the smallest p-value first."""
    differing = [found for found in pair["per_class"] if found["difference"]["value"]]
    # Classes without a p-value come last, in alphabetical order.
    differing.sort(key=lambda found: (1.0 if found["p_value"] is None else found["p_value"], found["class"]))
    if not differing:
        return
    one, other, name = pair["first"], pair["second"], differing[0]["metric"]
    rows = [
        (
            f"{METRICS[name].in_words} of",
            one,
            other,
            f"{one} - {other}",
            "interval",
            "images",
            f"only {one}",
            f"only {other}",
        )
    ]
    for found in differing[:_MAX_CLASSES]:
        values = [format_metric_value(found[side], name) for side in ("first", "second")]
        counts = ["" if found[side] is None else str(found[side]) for side in ("only_first", "only_second")]
        difference = found["difference"]
        rows.append(
            (
                found["class"],
                *values,
                _signed(difference["value"], name),
                _interval(difference, name),
                str(found["images"]),
                *counts,
            )
        )
    yield "by class" if differing[0]["p_value"] is None else _significant_classes(pair, document["confidence"])
    yield from format_table(rows)
    if len(differing) > _MAX_CLASSES:
        yield f"  and {len(differing) - _MAX_CLASSES} more, see --json or --page"


def _significant_classes(pair: Mapping[str, Any], confidence: float) -> str:
    level = 1 - confidence
    found = [row["class"] for row in pair["per_class"] if row["corrected"] is not None and row["corrected"] < level]
    by, all_of = ("range", "ranges") if pair["per_class"][0]["metric"] == "mae" else ("class", "classes")
    names = ", ".join(found) if found else "none"
    return f"by {by}, smallest p first; significant after Holm's correction over all {all_of}: {names}"


def _runs_lines(document: Mapping[str, Any]) -> Iterator[str]:
    names = list(document["runs"][0]["metrics"])
    rows = [("", *(METRICS[name].in_words for name in names))]
    for run in document["runs"]:
        metrics = run["metrics"]
        rows.append((run["key"], *(format_metric_value(metrics[name]["value"], name) for name in names)))
    yield from format_table(rows)


def _matrix_lines(document: Mapping[str, Any]) -> Iterator[str]:
    """Yield a matrix of differences in the deciding metric, row minus column; a star where one is significant."""
    metric, keys = document["metric"], [run["key"] for run in document["runs"]]
    pairs = len(document["pairs"])
    yield f"{METRICS[metric].in_words}: row minus column; * significant after Holm's correction for {pairs} pairs"
    found = {(pair["first"], pair["second"]): pair for pair in document["pairs"]}
    rows = [("", *keys)]
    for row in keys:
        cells = []
        for column in keys:
            pair = found.get((row, column)) or found.get((column, row))
            value = None if pair is None else pair["metrics"][metric]["difference"]["value"]
            # Each pair is there once; below the diagonal its difference has the other sign.
            sign = 1 if (row, column) in found else -1
            star = "*" if pair is not None and pair["better"] else ""
            cells.append("" if value is None else _signed(sign * value, metric) + star)
        rows.append((row, *cells))
    yield from format_table(rows)


def _differing_lines(differing: Mapping[str, Any], rule: LabelRule) -> Iterator[str]:
    listed = differing["listed"]
    if not listed:
        return
    shown = listed[:_MAX_PATHS]
    more = ", such as" if len(listed) > len(shown) else ""
    yield format_line("differing", f"{differing['images']} images{more}")
    for image in shown:
        predicted = ", ".join(
            f"{key} predicts {rule.describe(prediction)}" for key, prediction in image["predictions"].items()
        )
        yield f"  {image['path']}: the label is {rule.describe(image['label'])}; {predicted}"


def _signed(value: float | None, name: str) -> str:
    if value is None:
        return "-"
    # Adding 0.0 turns -0.0 into 0.0, so that no difference is shown as -0.000.
    return f"{value + 0.0:+.3g}" if METRICS[name].has_units else f"{round(value, 3) + 0.0:+.3f}"


def _interval(metric: Mapping[str, Any], name: str) -> str:
    if metric["low"] is None:
        return "-"
    return f"[{_signed(metric['low'], name)}, {_signed(metric['high'], name)}]"
