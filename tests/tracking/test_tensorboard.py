from __future__ import annotations

import json
import subprocess
import sys

from tracking_helpers import metrics_line

from imagetune.tracking.tensorboard import write_tensorboard


def scalars(run_dir, name):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run_dir / "tensorboard"))
    events.Reload()
    return [(event.step, round(event.value, 4)) for event in events.Scalars(name)]


def test_tensorboard_reads_every_epoch_once(tmp_path):
    for epoch in (1, 2, 2, 1, 3):
        write_tensorboard(tmp_path, json.loads(metrics_line(epoch)))
    assert scalars(tmp_path, "val/f1") == [(1, 0.5), (2, 0.6), (3, 0.7)]
    assert scalars(tmp_path, "learning_rate") == [(1, 0.001), (2, 0.001), (3, 0.001)]


def test_a_record_cut_short_is_written_again(tmp_path):
    for epoch in (1, 2):
        write_tensorboard(tmp_path, json.loads(metrics_line(epoch)))
    file = next((tmp_path / "tensorboard").iterdir())
    file.write_bytes(file.read_bytes()[:-7])
    for epoch in (2, 3):
        write_tensorboard(tmp_path, json.loads(metrics_line(epoch)))
    assert [step for step, _ in scalars(tmp_path, "train/loss")] == [1, 2, 3]


def test_tensorflow_stays_out(tmp_path):
    code = f"""
import json, sys
from pathlib import Path
from imagetune.tracking.tensorboard import write_tensorboard
write_tensorboard(Path({str(tmp_path)!r}), json.loads({metrics_line(1)!r}))
print("tensorflow" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
