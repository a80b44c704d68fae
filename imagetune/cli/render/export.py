"""The comparison of an export with its model as lines for the screen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from imagetune.cli.render.lines import format_line
from imagetune.core.text import format_count


def format_parity(document: Mapping[str, Any], out: Path) -> Iterator[str]:
    """Yield how an accepted export differs from its model, what it costs, and where it lies."""
    accuracy = document["accuracy"]
    ends = f"[{100 * accuracy['low']:+.1f}, {100 * accuracy['high']:+.1f}]"
    yield format_line("verdict", f"{document['verdict']} on {document['images']:,} {document['split']} images")
    yield format_line("labels", f"{document['label_agreement']:.1%} of them as by the Keras model")
    yield format_line("difference", f"at most {document['max_difference']:.2g} in a probability")
    yield format_line("accuracy", f"{accuracy['exported']:.3f}, {100 * accuracy['difference']:+.1f} points {ends}")
    milliseconds = document["milliseconds"]
    yield format_line("latency", f"{milliseconds['median']:.1f} ms an image, 95% within {milliseconds['p95']:.1f} ms")
    size, memory = document["size_bytes"] / 1e6, document["peak_memory_bytes"] / 1e6
    yield format_line("size", f"{size:.1f} MB; {memory:.0f} MB of memory while it runs")
    if kept := len(document["float_layers"]):
        yield format_line("float32", f"{format_count(kept, 'layer')}, whose int8 cost too much")
    if scores := document["out_of_distribution"]:
        same = f"the same images flagged on {scores['flag_agreement']:.1%}"
        yield format_line("OOD", f"not in this export: {scores['problem']}" if scores["problem"] else same)
    if document["not_read"]:
        yield format_line("not read", f"{len(document['not_read'])} images by example.py; parity.json names them")
    yield format_line("written", str(out))
    yield format_line("use", f"python {out / 'example.py'} IMAGES...")
