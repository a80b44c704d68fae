"""Labels by task: parsing, counting and formatting of a class, several classes or a number. A label is always text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from imagetune.core.text import format_list
from imagetune.errors import DataError, RecipeError
from imagetune.recipe.tasks import Task

if TYPE_CHECKING:
    from imagetune.data.sources.records import Record
    from imagetune.recipe.sections.data import DataConfig

# The default name of the label column would head two columns of predictions.csv.
PLAIN_COLUMN = "label"
PLAIN_VALUE = "value"
# Columns that tables of predictions have beside one for each class.
_PREDICTION_COLUMNS = frozenset(
    (
        *("path", "label", "predicted", "prediction_set", "low", "high", "error", "split", "group"),
        *("out_of_distribution", "out_of_distribution_score"),
    )
)
_CLASS_PREFIX = "class "
# The largest float32, in which models compute.
MAX_VALUE = 3.4e38


@dataclass(frozen=True)
class LabelRule:
    """Rule for parsing label texts of a task.

    Attributes:
        task: The task, which determines what a label is.
        separator: The separator between the labels of an image, for multi_label.
        value_name: The name of the target, for regression.
    """

    task: Task = "single_label"
    separator: str = ";"
    value_name: str = PLAIN_VALUE

    def names(self, label: str) -> tuple[str, ...]:
        """Return the class names in a label; for regression the name of the target."""
        if self.task == "multi_label":
            return split_labels(label, self.separator)
        return (self.value_name,) if self.task == "regression" else (label,)

    def counts(self, labels: Iterable[str]) -> Counter[str]:
        """Return the number of labels that contain each class; a label of several classes counts for each."""
        counts: Counter[str] = Counter()
        for label, count in Counter(labels).items():
            counts.update(dict.fromkeys(self.names(label), count))
        return counts

    def describe(self, label: str) -> str:
        """Return a label for display: ``cat, dog`` for two labels, ``none`` for none, a number with six digits."""
        if self.task == "multi_label":
            return ", ".join(self.names(label)) or "none"
        number = parse_number(label) if self.task == "regression" else None
        return label if number is None else f"{number:.6g}"


SINGLE_LABEL = LabelRule()


def build_label_rule(config: DataConfig) -> LabelRule:
    """Return the label rule of a recipe's data section."""
    column = config.columns.label
    return LabelRule(config.task, config.label_separator, PLAIN_VALUE if column == PLAIN_COLUMN else column)


def name_class_column(name: str) -> str:
    """Return the column of a class in a table of predictions: its name, or ``class label`` for a class ``label``.

    Such a table is read by column names, and a second column ``label`` would be taken for the label.
    """
    return f"{_CLASS_PREFIX}{name}" if _is_taken(name) else name


def parse_class_column(column: str) -> str:
    """Return the class that `name_class_column` named a column for."""
    name = column.removeprefix(_CLASS_PREFIX)
    return name if name != column and _is_taken(name) else column


def _is_taken(name: str) -> bool:
    # A class `class label` keeps apart from the column of a class `label` only if it gets a prefix, too.
    while name.startswith(_CLASS_PREFIX):
        name = name.removeprefix(_CLASS_PREFIX)
    return name in _PREDICTION_COLUMNS


def split_labels(label: str, separator: str) -> tuple[str, ...]:
    """Return the labels in a text, stripped, sorted and without repetitions."""
    return tuple(sorted({part.strip() for part in label.split(separator)} - {""}))


def join_labels(labels: Iterable[str], separator: str) -> str:
    """Return the canonical text of an image's labels: sorted, without repetitions, joined by the separator."""
    return separator.join(sorted(set(labels)))


def require_plain(label: str, separator: str, *, where: str) -> None:
    """Raise an error for a label that contains the separator, because the joined text could not be split again.

    Raises:
        DataError: The label contains the separator.
    """
    if separator in label:
        what = f"the label {label!r} contains the separator {separator!r}"
        raise DataError(what, where=where, hint="set data.label_separator to a text in no label, such as '|'")


def parse_number(label: str) -> float | None:
    """Return the number in a text, None where it is not a number or beyond the range of float32."""
    try:
        value = float(label)
    except ValueError:
        return None
    # NaN fails this comparison, too.
    return value if abs(value) <= MAX_VALUE else None


def format_exact_number(value: float) -> str:
    """Return the canonical text of a number: the shortest that parses to it, without a point for whole numbers."""
    # The repr of a NumPy float would contain its type.
    # Beyond 2^53, about 9e15, float64 no longer holds every whole number, so the digits of an integer would mislead.
    number = float(value)
    return str(int(number)) if abs(number) < 1e15 and number.is_integer() else repr(number)


def canonicalize_labels(records: Sequence[Record], config: DataConfig) -> tuple[Record, ...]:
    """Return the records with canonical labels: ``3`` for ``3.0``, ``cat;dog`` for ``dog; cat``.

    Args:
        records: The records as read from the source.
        config: ``task``, ``label_separator`` and, for multi_label, ``classes`` are used; other labels are left out.

    Raises:
        DataError: A regression label is not a finite number.
    """
    if config.task == "multi_label":
        known = None if config.classes is None else frozenset(config.classes)
        texts = {record.label: _canonicalize_set(record.label, config.label_separator, known) for record in records}
    elif config.task == "regression":
        texts = {record.label: _canonicalize_number(record) for record in records}
    else:
        return tuple(records)
    return tuple(replace(record, label=texts[record.label]) for record in records)


def order_classes(names: Iterable[str], config: DataConfig) -> tuple[str, ...]:
    """Return class names in the default order of the model's outputs: by name, for ordinal tasks by number.

    Raises:
        RecipeError: Ordinal classes are not numbers, so ``data.classes`` must give their order.
    """
    if config.task != "ordinal":
        return tuple(sorted(names))
    numbers = {name: parse_number(name) for name in names}
    if words := sorted(name for name, number in numbers.items() if number is None):
        what = f"an ordinal task needs the order of the classes, and {format_list(map(repr, words))} are not numbers"
        hint = f"list them from lowest to highest, such as [{', '.join(words[:3])}]"
        raise RecipeError(what, where="data.classes", hint=hint)
    return tuple(sorted(numbers, key=lambda name: (numbers[name], name)))


def _canonicalize_set(label: str, separator: str, known: frozenset[str] | None) -> str:
    labels = split_labels(label, separator)
    return join_labels(labels if known is None else known.intersection(labels), separator)


def _canonicalize_number(record: Record) -> str:
    value = parse_number(record.label)
    if value is None:
        hint = "regression needs numbers such as 3 or 2.5e-3, with a decimal point; remove images without one"
        raise DataError(f"has the label {record.label!r}, which is not a finite number", where=record.path, hint=hint)
    return format_exact_number(value)
