"""TensorBoard event files, written by TensorBoard's own record writer without TensorFlow."""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from imagetune.tracking.content import list_epoch_metrics

FOLDER = "tensorboard"
# One name for all of a run's sessions: TensorBoard draws each file of events as it comes, and a resumed run appends.
_FILE = "events.out.tfevents.0000000000.imagetune"
_HEADER = struct.Struct("<Q")
_CHECKSUM_BYTES = 4


def write_tensorboard(run_dir: Path, record: Mapping[str, Any]) -> None:
    """Append the metrics of one epoch to ``RUN/tensorboard``; an epoch that is there already is left alone.

    Args:
        run_dir: The run folder.
        record: A line of metrics.jsonl.
    """
    # The name of a function in here would hide the package from a plain `import tensorboard`.
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.record_writer import RecordWriter

    path = run_dir / FOLDER / _FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    epoch = int(record["epoch"])
    steps = [Event.FromString(data).step for data in _records(path)]
    if epoch in steps:
        return
    values = [Summary.Value(tag=name, simple_value=value) for name, value in list_epoch_metrics(record).items()]
    with path.open("ab") as file:
        writer = RecordWriter(file)
        # TensorBoard takes a file for one of events by its first record.
        if not steps:
            writer.write(Event(wall_time=time.time(), file_version="brain.Event:2").SerializeToString())
        writer.write(Event(wall_time=time.time(), step=epoch, summary=Summary(value=values)).SerializeToString())
        writer.flush()


def _records(path: Path) -> Iterator[bytes]:
    """Yield the complete records of a file; one that a crash cut short is removed, so that appending goes on."""
    if not path.exists():
        return
    data, start = path.read_bytes(), 0
    while start + _HEADER.size <= len(data):
        length = _HEADER.unpack_from(data, start)[0]
        first = start + _HEADER.size + _CHECKSUM_BYTES
        end = first + length + _CHECKSUM_BYTES
        if end > len(data):
            break
        yield data[first : first + length]
        start = end
    if start < len(data):
        with path.open("r+b") as file:
            file.truncate(start)
