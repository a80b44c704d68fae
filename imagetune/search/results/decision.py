"""Why a bake-off chose its winner, in sentences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from imagetune.core.text import format_count
from imagetune.recipe.sections.search import SearchConfig
from imagetune.search.proposers.bakeoff import get_probe_id
from imagetune.search.records.trial import Trial
from imagetune.search.results.bakeoff import BackboneResult

# Less than the last decimal that is shown.
SMALLEST_GAIN = 5e-5


def describe_decision(rows: Sequence[BackboneResult], winner: Trial, config: SearchConfig) -> str:
    """Return why a backbone won: its probe against the others, the preference, and what fine-tuning gained.

    Args:
        rows: The backbones, the best probe first.
        winner: The winner's trial, a fine-tuning or a probe.
        config: The ``search`` section.
    """
    chosen = next(row for row in rows if row.result.trial.trial_id == get_probe_id(winner))
    probed = [row for row in rows if row.probe is not None]
    if chosen.probe is None:
        return f"{chosen.name} has the best {config.objective} of the fine-tunings."
    if config.max_latency_ms is not None and chosen.milliseconds > config.max_latency_ms:
        return f"No candidate takes at most {config.max_latency_ms:g} ms for an image, so none was chosen."
    return " ".join((*_compare_probes(chosen, probed, config), _describe_gain(chosen, config)))


def _compare_probes(chosen: BackboneResult, probed: Sequence[BackboneResult], config: SearchConfig) -> Iterator[str]:
    if config.max_latency_ms is not None:
        everything = format_count(len(probed), "candidate")
        probed = [row for row in probed if row.milliseconds <= config.max_latency_ms]
        yield f"{len(probed)} of {everything} take at most {config.max_latency_ms:g} ms for an image."
    if config.prefer != "accuracy":
        what = "quickest" if config.prefer == "speed" else "smallest"
        yield f"{chosen.name} is the {what} of those within one standard error of the best probe."
    elif chosen is probed[0] and len(probed) > 1:
        yield f"{chosen.name} has the best probe of {len(probed)} candidates.{_compare_with(chosen, probed[1])}"
    elif chosen is not probed[0]:
        place = 1 + probed.index(chosen)
        yield f"{chosen.name} has probe number {place} of {len(probed)}, and is ahead after fine-tuning."


def _compare_with(chosen: BackboneResult, second: BackboneResult) -> str:
    # Differences are to the best of all probes, which a limit of latency may have left out.
    if second.difference is None or chosen.difference is not None:
        return ""
    difference, low, high = second.difference
    text = f" The next is {second.name}: {difference:+.4f} (95% interval {low:+.4f} to {high:+.4f})"
    return f"{text}, which is not statistically significant." if low <= 0 <= high else f"{text}."


def _describe_gain(chosen: BackboneResult, config: SearchConfig) -> str:
    if chosen.tuned is None or chosen.probe is None:
        return "No fine-tuning was asked for." if config.finalists == 0 else "There was no time to fine-tune it before."
    gain = chosen.tuned - float(chosen.probe["value"])
    if abs(gain) < SMALLEST_GAIN:
        return "Training its last layers gained nothing over the solved head."
    return f"Fine-tuning changed its {config.objective} by {gain:+.4f}."
