import gzip
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).parents[2]
MODULES = sorted(
    path.stem for path in (ROOT / "benchmarks").glob("*.py") if "def main()" in path.read_text(encoding="utf-8")
)
STARTS_KERAS = ("evaluation",)
PEERS = ("keras_guide.py", "bare_script.py")


def helped(command):
    ended = subprocess.run([sys.executable, *command, "--help"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in STARTS_KERAS else name for name in MODULES]
)
def test_each_benchmark_explains_itself(name):
    assert f"python -m benchmarks.{name}" in helped(["-m", f"benchmarks.{name}"])


@pytest.mark.slow
@pytest.mark.parametrize("name", PEERS)
def test_each_peer_of_this_environment_explains_itself(name):
    assert f"python benchmarks/peers/{name} FOLDER" in helped([f"benchmarks/peers/{name}"])


def test_the_requirement_of_the_head_stage_counts_epochs():
    from benchmarks.head_stage import AGAIN, OURS, PLAIN, Contest, page
    from benchmarks.side_by_side import Comparison

    arguments = SimpleNamespace(longest_plain=10)
    contest = Contest(arguments, "vgg16", 40, Path(), {PLAIN: 0.9, OURS: 0.91})
    text = page(contest, Comparison({PLAIN: [100.0], OURS: [4.0], AGAIN: [2.0]}))
    assert "25.0 (25.0 to 25.0) times faster; required are 0.7 x 40 = 28.0, of which this is 0.893." in text
    assert "The plain script ran for 10 epochs" in text
    assert "Test accuracy: plain script 0.900, imagetune 0.910." in text


def test_a_trace_is_read_by_stream_and_busy_time_is_not_counted_twice(tmp_path):
    from benchmarks.traces import time_by_lane

    def event(name, start, length, thread=1):
        return {"ph": "X", "pid": 1, "tid": thread, "name": name, "ts": start, "dur": length}

    names = [
        {"ph": "M", "pid": 1, "name": "process_name", "args": {"name": "/device:GPU:0"}},
        {"ph": "M", "pid": 1, "tid": 1, "name": "thread_name", "args": {"name": "Stream #14(Compute)"}},
        {"ph": "M", "pid": 1, "tid": 2, "name": "thread_name", "args": {"name": "XLA Ops"}},
    ]
    work = [event("conv.1", 0, 40), event("conv.2", 40, 20), event("copy", 50, 20), event("whole", 0, 100, thread=2)]
    with gzip.open(tmp_path / "host.trace.json.gz", "wt") as file:
        json.dump({"traceEvents": [*names, *work]}, file)
    assert time_by_lane(tmp_path) == {
        "/device:GPU:0 Stream #14(Compute)": {"busy": 0.7, "conv": 0.6, "copy": 0.2},
    }
