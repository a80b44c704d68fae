"""Shapes of a run folder's JSON documents, as far as programs rely on them; `imagetune.core.run_files` has their names.

What is not named here is kept as it is: the analyses in evaluation.json, and what later versions add.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter
from typing_extensions import TypedDict

_OPEN = ConfigDict(extra="allow", strict=True)
# JSON's readers take whole numbers beyond this for others, and NumPy has none beyond 2**63.
Count = Annotated[int, Field(ge=0, le=2**53)]
Number = Annotated[float, Field(allow_inf_nan=False)]


class Status(TypedDict, total=False):
    """status.json."""

    __pydantic_config__ = _OPEN  # type: ignore[misc]  # pydantic's own way; no key
    state: str
    stage: str
    epoch: Count
    step: Count
    error: str | None
    pid: Annotated[int, Field(ge=0, lt=2**31)]


class _Platform(TypedDict, total=False):
    __pydantic_config__ = _OPEN  # type: ignore[misc]
    memory_bytes: Count


class _Weights(TypedDict, total=False):
    __pydantic_config__ = _OPEN  # type: ignore[misc]
    source: str
    sha256: str | None
    note: str
    license: str | None


class Lock(TypedDict, total=False):
    """lock.json."""

    __pydantic_config__ = _OPEN  # type: ignore[misc]
    versions: dict[str, str]
    platform: _Platform
    seeds: dict[str, Any]
    weights: _Weights
    images: dict[str, str]


class Epoch(TypedDict):
    """A line of metrics.jsonl."""

    __pydantic_config__ = _OPEN  # type: ignore[misc]
    stage: str
    epoch: Count
    step: Count
    train: dict[str, Number]
    val: dict[str, Number]
    learning_rate: Number | None
    images_per_second: Number
    solved: NotRequired[dict[str, Number]]


class _Judged(TypedDict):
    __pydantic_config__ = _OPEN  # type: ignore[misc]
    kept: bool
    gain: Number | None
    standard_error: Number
    required: Number


class Stage(TypedDict):
    """A line of stages.jsonl."""

    __pydantic_config__ = _OPEN  # type: ignore[misc]
    name: str
    judged: NotRequired[_Judged]
    learning_rates: NotRequired[dict[str, Number]]


class Estimate(TypedDict):
    """A metric with its interval."""

    __pydantic_config__ = _OPEN  # type: ignore[misc]
    value: Number | None
    low: Number | None
    high: Number | None
    reason: NotRequired[str]
    method: NotRequired[str]


# "class" is a keyword of Python.
ClassRow = TypedDict(
    "ClassRow",
    {
        "class": str,
        "images": Count,
        "predicted": Count,
        "right": Count,
        "threshold": NotRequired[Number],
        "metrics": dict[str, Estimate],
    },
)
ClassRow.__pydantic_config__ = _OPEN  # type: ignore[attr-defined]


def _require_square(matrix: list[list[int]]) -> list[list[int]]:
    if any(len(row) != len(matrix) for row in matrix):
        raise ValueError("its rows are not as long as it is high")
    return matrix


class Split(TypedDict):
    """The metrics of a split in evaluation.json."""

    __pydantic_config__ = _OPEN  # type: ignore[misc]
    images: Count
    left_out: NotRequired[Count]
    groups: NotRequired[Count]
    metrics: dict[str, Estimate]
    averages: NotRequired[dict[str, dict[str, Number | None]]]
    per_class: NotRequired[list[ClassRow]]
    confusion_matrix: NotRequired[Annotated[list[list[Count]], AfterValidator(_require_square)]]
    notes: NotRequired[list[str]]


class _Bootstrap(TypedDict):
    __pydantic_config__ = _OPEN  # type: ignore[misc]
    confidence: Number


class _Verdict(TypedDict):
    __pydantic_config__ = _OPEN  # type: ignore[misc]
    code: str
    title: str
    text: str
    advice: str


class _Requirement(TypedDict):
    __pydantic_config__ = _OPEN  # type: ignore[misc]
    metric: str
    lower_bound: NotRequired[Number | None]
    upper_bound: NotRequired[Number | None]
    value: NotRequired[Number | None]
    found: Number | None
    met: bool
    message: str


class _Seen(TypedDict):
    __pydantic_config__ = _OPEN  # type: ignore[misc]
    images: Count | None


class Evaluation(TypedDict, total=False):
    """evaluation.json without its analyses."""

    __pydantic_config__ = _OPEN  # type: ignore[misc]
    task: Literal["single_label", "multi_label", "ordinal", "regression"]
    class_names: list[str]
    top_k: Count
    tta: list[str]
    bootstrap: _Bootstrap
    splits: dict[str, Split]
    gaps: dict[str, dict[str, Estimate]]
    power: dict[str, Any]
    verdict: _Verdict | None
    requirements: list[_Requirement]
    seen: _Seen
    refit: bool


class _Finding(TypedDict, total=False):
    __pydantic_config__ = _OPEN  # type: ignore[misc]
    code: str
    severity: str
    title: str
    explanation: str
    hint: str
    paths: list[str]


class Audit(TypedDict, total=False):
    """audit.json."""

    __pydantic_config__ = _OPEN  # type: ignore[misc]
    source: str
    findings: list[_Finding]


class _Member(TypedDict):
    __pydantic_config__ = _OPEN  # type: ignore[misc]
    run: str
    kept: bool


class Soup(TypedDict, total=False):
    """soup.json."""

    __pydantic_config__ = _OPEN  # type: ignore[misc]
    members: list[_Member]
    steps: list[dict[str, Any]]


class Tracking(TypedDict, total=False):
    """tracking.json."""

    __pydantic_config__ = _OPEN  # type: ignore[misc]
    key: str
    uri: str
    experiment: str
    parent_run_id: str | None
    tags: dict[str, str]
    log_model: bool
    metrics: dict[str, Number]
    note: str
    run_id: str | None
    experiment_id: str | None
    line_times: list[Count]
    lines_sent: Count
    sent: dict[str, str]


class Search(TypedDict, total=False):
    """search.json: each space by its dotted path."""

    __pydantic_config__ = _OPEN  # type: ignore[misc]
    algorithm: str
    objective: str
    folds: Count | None
    spaces: dict[str, dict[str, Any]]


class Receipt(TypedDict):
    """receipt.json."""

    __pydantic_config__ = _OPEN  # type: ignore[misc]
    files: dict[str, str]
    runs: list[str]


STATUS = TypeAdapter[Any](Status)
LOCK = TypeAdapter[Any](Lock)
EPOCH = TypeAdapter[Any](Epoch)
STAGE = TypeAdapter[Any](Stage)
EVALUATION = TypeAdapter[Any](Evaluation)
AUDIT = TypeAdapter[Any](Audit)
SOUP = TypeAdapter[Any](Soup)
TRACKING = TypeAdapter[Any](Tracking)
SEARCH = TypeAdapter[Any](Search)
RECEIPT = TypeAdapter[Any](Receipt)
OBJECT = TypeAdapter[Any](dict[str, Any])
