from __future__ import annotations

from mlflow import MlflowClient
from tracking_helpers import wait_until

from imagetune.core.files import read_json_lines
from imagetune.tracking.state import read_state
from imagetune.tracking.sync import sync_run
from imagetune.tracking.system import SystemSampler


def test_processor_and_memory_are_sampled_until_the_end(tmp_path):
    sampler = SystemSampler(tmp_path, seconds=0.02)
    sampler.start()
    wait_until(lambda: len(read_json_lines(tmp_path / "system.jsonl")) >= 2)
    sampler.stop()
    lines = read_json_lines(tmp_path / "system.jsonl")
    assert all(0 <= line["cpu_utilization_percentage"] <= 100 for line in lines)
    assert 0 < lines[-1]["process_memory_usage_megabytes"] < 1e6
    assert [line["time"] for line in lines] == sorted(line["time"] for line in lines)


def test_a_run_shorter_than_a_sample_has_one(tmp_path):
    sampler = SystemSampler(tmp_path, seconds=60)
    sampler.start()
    sampler.stop()
    assert len(read_json_lines(tmp_path / "system.jsonl")) == 1


def test_mlflows_own_switch_turns_sampling_off(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "false")
    sampler = SystemSampler(tmp_path)
    sampler.start()
    sampler.stop()
    assert not (tmp_path / "system.jsonl").exists()


def test_samples_are_sent_once(store, run_dir):
    sampler = SystemSampler(run_dir)
    sampler.start()
    sampler.stop()
    sync_run(run_dir)
    assert sync_run(run_dir).sent == 0
    history = MlflowClient(store).get_metric_history(read_state(run_dir).run_id, "system/cpu_utilization_percentage")
    assert [metric.step for metric in history] == [0]
