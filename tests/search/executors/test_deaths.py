from __future__ import annotations

import pytest

from imagetune.search.executors.deaths import describe_death, memory_kills


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "trial.log"
    path.write_text("Traceback (most recent call last):\n  File x\nValueError:   no such\tthing\n\n")
    return path


@pytest.mark.parametrize(
    ("code", "for_memory", "reason"),
    [
        (-9, True, "resources: killed, probably out of memory; lower train.batch_size or search.parallel"),
        (-9, False, "internal: its process was killed by SIGKILL"),
        (-11, True, "internal: its process was killed by SIGSEGV"),
        (-6, False, "internal: its process was killed by SIGABRT"),
        (-99, False, "internal: its process was killed by signal 99"),
        (1, False, "internal: its process ended with exit code 1: ValueError: no such thing"),
    ],
)
def test_the_reason_is_one_line(log, code, for_memory, reason):
    assert describe_death(code, log, for_memory=for_memory) == reason


def test_without_a_log_the_exit_code_is_all_that_is_known(tmp_path):
    assert describe_death(3, tmp_path / "trial.log", for_memory=False) == "internal: its process ended with exit code 3"


def test_kills_are_counted_for_the_machine_and_its_container(tmp_path):
    (tmp_path / "vmstat").write_text("nr_free_pages 5\noom_kill 3\n")
    (tmp_path / "events").write_text("low 0\noom 7\noom_kill 2\noom_group_kill 1\n")
    assert memory_kills((tmp_path / "vmstat", tmp_path / "events")) == 5
    assert memory_kills((tmp_path / "vmstat", tmp_path / "none")) == 3
    assert memory_kills((tmp_path / "none",)) is None
