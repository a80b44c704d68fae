"""What a record's label says, task by task: one class, several classes, or a number. A label is always a text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from imagetune.core.text import format_list
from imagetune.errors import DataError, RecipeError

if TYPE_CHECKING:
    from imagetune.data.sources.records import Record
    from imagetune.recipe.data import DataConfig, Task

# The default name of the label column would head two columns of predictions.csv.
PLAIN_COLUMN = "label"
PLAIN_VALUE = "value"
# Models compute in float32.
LARGEST = 3.4e38


@dataclass(frozen=True)
class LabelRule:
    """How labels are read.

    Attributes:
        task: What a label is.
        separator: What stands between the labels of an image, for multi_label.
        value_name: What the number is called, for regression.
    """

    task: Task = "single_label"
    separator: str = ";"
    value_name: str = PLAIN_VALUE

    def names(self, label: str) -> tuple[str, ...]:
        """Return the classes that a label names; for regression the name of the number."""
        if self.task == "multi_label":
            return split_labels(label, self.separator)
        return (self.value_name,) if self.task == "regression" else (label,)

    def counts(self, labels: Iterable[str]) -> Counter[str]:
        """Return how many labels name each class; one that names several counts for each."""
        counts: Counter[str] = Counter()
        for label, count in Counter(labels).items():
            counts.update(dict.fromkeys(self.names(label), count))
        return counts

    def told(self, label: str) -> str:
        """Return a label as people read it: ``cat, dog`` for two labels, ``none`` for none, few digits."""
        if self.task == "multi_label":
            return ", ".join(self.names(label)) or "none"
        number = number_of(label) if self.task == "regression" else None
        return label if number is None else f"{number:.6g}"


ONE_CLASS = LabelRule()


def label_rule(config: DataConfig) -> LabelRule:
    """Return how the labels of a recipe's images are read."""
    column = config.columns.label
    return LabelRule(config.task, config.label_separator, PLAIN_VALUE if column == PLAIN_COLUMN else column)


def split_labels(label: str, separator: str) -> tuple[str, ...]:
    """Return the labels in a text, sorted, each once; blanks around them don't count."""
    return tuple(sorted({part.strip() for part in label.split(separator)} - {""}))


def join_labels(labels: Iterable[str], separator: str) -> str:
    """Return the canonical text of an image's labels: sorted, each once."""
    return separator.join(sorted(set(labels)))


def require_plain(label: str, separator: str, *, where: str) -> None:
    """Refuse a label that holds the separator: joined with others it would fall apart.

    Raises:
        DataError: It does.
    """
    if separator in label:
        what = f"the label {label!r} holds the separator {separator!r}"
        raise DataError(what, where=where, hint="set data.label_separator to what no label holds, such as '|'")


def number_of(label: str) -> float | None:
    """Return the finite number that a text is, or None; what float32 can't hold is as good as infinite."""
    try:
        value = float(label)
    except ValueError:
        return None
    return value if abs(value) <= LARGEST else None


def number_text(value: float) -> str:
    """Return the canonical text of a number: the shortest that gives it back, whole ones without a point."""
    # The repr of NumPy's floats names their type.
    number = float(value)
    return str(int(number)) if abs(number) < 1e15 and number.is_integer() else repr(number)


def canonicalize_labels(records: Sequence[Record], config: DataConfig) -> tuple[Record, ...]:
    """Return the records with their labels in canonical text: 3 for 3.0, cat;dog for dog; cat.

    Args:
        records: As the source has them.
        config: ``task``, ``label_separator`` and, for multi_label, ``classes``: other labels are left out.

    Raises:
        DataError: A label of regression is no finite number.
    """
    if config.task == "multi_label":
        known = None if config.classes is None else frozenset(config.classes)
        texts = {record.label: _label_set(record.label, config.label_separator, known) for record in records}
    elif config.task == "regression":
        texts = {record.label: _number(record) for record in records}
    else:
        return tuple(records)
    return tuple(replace(record, label=texts[record.label]) for record in records)


def order_classes(names: Iterable[str], config: DataConfig) -> tuple[str, ...]:
    """Return class names in the order of the model's outputs, where ``data.classes`` doesn't give it.

    By name; for ordinal by number.

    Raises:
        RecipeError: Classes that should be ordered are no numbers, so that nothing tells their order.
    """
    if config.task != "ordinal":
        return tuple(sorted(names))
    numbers = {name: number_of(name) for name in names}
    if words := sorted(name for name, number in numbers.items() if number is None):
        what = f"ordinal needs the order of the classes, and {format_list(map(repr, words))} are no numbers"
        hint = f"list them from lowest to highest, such as [{', '.join(words[:3])}]"
        raise RecipeError(what, where="data.classes", hint=hint)
    return tuple(sorted(numbers, key=lambda name: (numbers[name], name)))


def _label_set(label: str, separator: str, known: frozenset[str] | None) -> str:
    labels = split_labels(label, separator)
    return join_labels(labels if known is None else known.intersection(labels), separator)


def _number(record: Record) -> str:
    value = number_of(record.label)
    if value is None:
        hint = "regression takes numbers such as 3 or 2.5e-3, with a point; leave images without one out"
        raise DataError(f"has the label {record.label!r}, which is no finite number", where=record.path, hint=hint)
    return number_text(value)
