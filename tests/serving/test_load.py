"""Many clients at a time, a tenth of whom drop their connections: no wrong and no lost prediction."""

import psutil
import pytest

from benchmarks.http_load import Sample, run_clients

CLIENTS = 64


@pytest.fixture(scope="module")
def samples(served, files):
    """Images with what they are answered alone."""
    kinds = {"png": "image/png", "jpg": "image/jpeg", "webp": "image/webp"}
    found = []
    for name, data in files.items():
        kind = kinds[name.partition(".")[2]]
        (prediction,) = served.send("/v1/predict", data, kind).json()["predictions"]
        found.append(Sample(data, kind, prediction["probabilities"]))
    return found


@pytest.mark.parametrize("seconds", [4, pytest.param(60, marks=pytest.mark.slow)])
def test_no_prediction_is_wrong_or_lost(served, samples, seconds):
    process = psutil.Process(served.process.pid)
    served.await_workers()
    # Each size of batch takes its memory once.
    run_clients(served.port, samples, clients=CLIENTS, duration_seconds=2, drop_share=0.1)
    before = measure_memory(process)
    load = run_clients(served.port, samples, clients=CLIENTS, duration_seconds=seconds, drop_share=0.1)
    assert (load.wrong, load.lost, dict(load.refused)) == (0, 0, {})
    assert len(load.seconds) > 10 * seconds
    assert load.dropped > 0
    assert measure_memory(process) < before + 64e6
    assert served.send("/healthz").status == 200
    # Whoever has left is nobody's prediction any more.
    assert "imagetune_queued_images 0.0" in served.send("/metrics").body.decode()


def measure_memory(process):
    return sum(each.memory_info().rss for each in (process, *process.children()))
