from __future__ import annotations

import functools
import gc
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
import trial_works

from imagetune.recipe.schema import Recipe
from imagetune.search.executors.processes import Processes
from imagetune.search.executors.protocol import Task
from imagetune.search.executors.slots import Slot
from imagetune.search.trial_process.forkserver import PRELOADED

RECIPE = Recipe.model_validate({"data": {"source": "images"}})
ONE = (Slot("cpu"),)
# A trial imports nothing itself then. A server with Keras, from an earlier test, has all of this, too.
LIGHT = ("imagetune.recipe.schema", "imagetune.search.executors.processes")
PARENT = Path(__file__).parents[2] / "helpers" / "trial_parent.py"
MIB = 2**20

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="what Linux's processes do")


def task(folder, number=1):
    return Task(f"{number:03d}", folder / f"trial-{number:03d}", RECIPE)


@contextmanager
def processes(work, slots=ONE, *, preload=LIGHT, **settings):
    executor = Processes(work, slots, preload=preload, **settings)
    try:
        yield executor
    finally:
        executor.close()


def run(executor, tasks, seconds=60):
    """Run tasks one after the other and return their outcomes."""
    outcomes = []
    for one in tasks:
        executor.start(one)
        outcomes += [outcome for _, outcome in ended(executor, seconds)]
    return outcomes


def ended(executor, seconds=60):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := executor.wait(0.2):
            return found
    raise AssertionError("nothing has ended")


def wait_for(seconds, happens):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := happens():
            return found
        time.sleep(0.02)
    raise AssertionError("it hasn't happened")


def alive(pids):
    return [pid for pid in pids if psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE]


def test_each_trial_has_a_process_of_its_own_with_keras_loaded(tmp_path):
    with processes(trial_works.describing, preload=PRELOADED) as executor:
        outcomes = run(executor, [task(tmp_path, number) for number in (1, 2)])
    seen = [eval((tmp_path / f"trial-00{number}" / "seen.txt").read_text()) for number in (1, 2)]
    assert len({seen[0]["pid"], seen[1]["pid"], os.getpid()}) == 3
    assert [outcome.objective for outcome in outcomes] == [1.0, 2.0]
    if sys.platform == "linux":
        assert all(one["keras"] for one in seen)


@on_linux
def test_a_trial_begins_within_a_second_once_the_server_is_there(tmp_path):
    with processes(trial_works.stamped) as executor:
        run(executor, [task(tmp_path, 1)])
        started = time.time()
        run(executor, [task(tmp_path, 2)])
    assert float((tmp_path / "trial-002" / "began.txt").read_text()) - started < 1.0


def test_the_outcome_says_where_it_ran_and_for_how_long(tmp_path):
    began = time.monotonic()
    with processes(trial_works.done, [Slot("gpu 7")]) as executor:
        (outcome,) = run(executor, [task(tmp_path)])
    assert outcome.place == "gpu 7"
    assert 0.0 < outcome.seconds <= time.monotonic() - began
    assert (outcome.epochs, outcome.best_epoch, outcome.error) == (2, 1, "")


def test_a_process_sees_the_environment_of_its_slot_over_todays(tmp_path, monkeypatch):
    slots = [Slot("gpu 0", {"CUDA_VISIBLE_DEVICES": "0"}), Slot("gpu 1", {"CUDA_VISIBLE_DEVICES": "1"})]
    with processes(trial_works.describing, slots) as executor:
        assert executor.slots == 2
        monkeypatch.setenv("TRIAL_TEST", "set after the server was started")
        for number in (1, 2):
            executor.start(task(tmp_path, number))
        found = [*ended(executor)]
        if len(found) < 2:
            found += ended(executor)
    seen = [eval((tmp_path / f"trial-00{number}" / "seen.txt").read_text()) for number in (1, 2)]
    assert [one["CUDA_VISIBLE_DEVICES"] for one in seen] == ["0", "1"]
    assert {one["TRIAL_TEST"] for one in seen} == {"set after the server was started"}
    assert {where.trial_id: outcome.place for where, outcome in found} == {"001": "gpu 0", "002": "gpu 1"}


def test_what_a_trial_prints_is_in_its_folder_and_never_on_the_screen(tmp_path, capfd):
    with processes(trial_works.telling) as executor:
        run(executor, [task(tmp_path)])
    log = tmp_path / "trial-001" / "trial.log"
    assert sorted(log.read_text().split("\n")) == ["", "by Python", "by a library"]
    assert capfd.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == [log.parent]


@on_linux
@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("signal", "internal: its process was killed by SIGSEGV"),
        ("exit", "internal: its process ended with exit code 3: about to go"),
        ("raise", "internal: ValueError: not meant to happen; see trial.log in its folder"),
    ],
)
def test_a_process_that_dies_is_a_failed_trial_with_its_reason_and_the_next_one_runs(tmp_path, how, reason, capfd):
    with processes(functools.partial(trial_works.dying, how)) as executor:
        first, second = run(executor, [task(tmp_path, 1), task(tmp_path, 2)])
    assert (first.status, first.objective, first.error) == ("failed", None, reason)
    assert (second.status, second.objective) == ("completed", 2.0)
    assert (tmp_path / "trial-001" / "trial.log").read_text().strip()
    assert capfd.readouterr() == ("", "")


@on_linux
def test_a_process_that_is_killed_says_so(tmp_path):
    with processes(functools.partial(trial_works.dying, "kill")) as executor:
        (outcome,) = run(executor, [task(tmp_path)])
    assert outcome.status == "failed"
    assert "SIGKILL" in outcome.error or "out of memory" in outcome.error


def test_a_thread_that_never_ends_does_not_keep_a_trial_from_ending(tmp_path):
    with processes(trial_works.hanging_on) as executor:
        (outcome,) = run(executor, [task(tmp_path)], seconds=20)
    assert outcome.status == "completed"


@on_linux
def test_close_asks_trials_to_stop_and_waits_for_them(tmp_path):
    executor = Processes(trial_works.polite, ONE)
    executor.start(task(tmp_path))
    pid = int(wait_for(30, lambda: _text(tmp_path / "trial-001" / "pid")))
    executor.close()
    assert (tmp_path / "trial-001" / "asked").exists()
    assert not alive([pid])


@on_linux
def test_close_kills_what_does_not_stop_with_what_it_has_started(tmp_path):
    executor = Processes(trial_works.stubborn, ONE, stop_seconds=0.3)
    executor.start(task(tmp_path))
    pids = _pids(tmp_path, "001")
    assert len(alive(pids)) == 2
    began = time.monotonic()
    executor.close()
    assert time.monotonic() - began < 10
    wait_for(5, lambda: not alive(pids))


@on_linux
def test_ctrl_c_stops_trials_by_sigterm_and_not_by_the_terminals_own_signal(tmp_path):
    with main_process(tmp_path, "polite", stop_seconds=20) as parent:
        for number in ("001", "002"):
            wait_for(60, lambda number=number: _text(tmp_path / f"trial-{number}" / "pid"))
        os.killpg(parent.pid, signal.SIGINT)
        assert parent.wait(20) != 0
    assert sorted(path.name for path in tmp_path.glob("*/asked")) == ["asked", "asked"]


@on_linux
def test_a_second_ctrl_c_ends_everything_at_once(tmp_path):
    with main_process(tmp_path, "stubborn", stop_seconds=60) as parent:
        pids = [*_pids(tmp_path, "001"), *_pids(tmp_path, "002")]
        family = [parent.pid, *(child.pid for child in psutil.Process(parent.pid).children(recursive=True))]
        assert set(pids) <= set(family)
        os.killpg(parent.pid, signal.SIGINT)
        time.sleep(0.5)
        assert len(alive(pids)) == 4
        os.killpg(parent.pid, signal.SIGINT)
        assert parent.wait(5) == 128 + signal.SIGINT
        wait_for(5, lambda: not alive(family))


@on_linux
def test_nothing_is_left_of_a_main_process_that_is_killed(tmp_path):
    with main_process(tmp_path, "polite", stop_seconds=60) as parent:
        for number in ("001", "002"):
            wait_for(60, lambda number=number: _text(tmp_path / f"trial-{number}" / "pid"))
        family = [child.pid for child in psutil.Process(parent.pid).children(recursive=True)]
        assert len(family) >= 3
        parent.kill()
        wait_for(10, lambda: not alive(family))


@on_linux
def test_a_server_that_was_killed_is_started_again(tmp_path):
    with processes(trial_works.done) as executor:
        run(executor, [task(tmp_path, 1)])
        for child in psutil.Process().children():
            if "forkserver" in " ".join(child.cmdline()):
                child.kill()
                wait_for(5, lambda child=child: not alive([child.pid]))
        (outcome,) = run(executor, [task(tmp_path, 2)])
    assert (outcome.status, outcome.error) == ("completed", "")


@on_linux
def test_after_100_trials_the_memory_of_the_main_process_has_hardly_grown(tmp_path):
    with processes(trial_works.telling) as executor:
        run(executor, [task(tmp_path, number) for number in range(1, 6)])
        gc.collect()
        process = psutil.Process()
        memory, handles = process.memory_info().rss, process.num_fds()
        run(executor, [task(tmp_path, number) for number in range(6, 106)])
        gc.collect()
        assert process.memory_info().rss - memory < 10 * MIB
        assert process.num_fds() <= handles


@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
@on_linux
def test_what_trials_are_forked_from_has_computed_nothing(tmp_path, backend):
    """Only threads that their libraries end or restart at a fork are there: OpenBLAS's and jemalloc's."""
    if backend == "jax":
        pytest.importorskip("jax")
    (tmp_path / "keras.py").write_text("raise SystemExit('the working folder was looked into')")
    code = """
import sys
import imagetune.search.trial_process.preload
import keras, threading
from pathlib import Path
names = [(path / "comm").read_text().strip() for path in Path("/proc/self/task").iterdir()]
assert len(names) - names.count("jemalloc_bg_thd") == 1, names
assert threading.active_count() == 1
if keras.backend.backend() == "jax":
    from jax._src import xla_bridge
    assert not xla_bridge.backends_are_initialized()
else:
    from tensorflow.python.eager import context
    assert context.context()._context_handle is None and context.context()._physical_devices is None
"""
    env = {**os.environ, "KERAS_BACKEND": backend, "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]


@contextmanager
def main_process(folder, work, *, stop_seconds):
    """Run a main process in a process group of its own, as a terminal would."""
    command = [sys.executable, str(PARENT), str(folder), work, str(stop_seconds)]
    parent = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield parent
    finally:
        children = psutil.Process(parent.pid).children(recursive=True) if parent.poll() is None else []
        parent.kill()
        parent.wait()
        for child in children:
            child.kill()


def _text(path):
    return path.read_text() if path.exists() else ""


def _pids(folder, number):
    return [int(pid) for pid in wait_for(60, lambda: _text(folder / f"trial-{number}" / "pids")).split()]
