import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import ray
import ray_work
from pydantic import ValidationError
from ray_clusters import add_node, remove_node, three_nodes

from imagetune.errors import ResourceError
from imagetune.recipe.schema import Recipe
from imagetune.recipe.sections.search import RayConfig
from imagetune.search.executors import ray_cluster
from imagetune.search.executors.protocol import Task
from imagetune.search.executors.ray_cluster import RayTasks

RECIPE = Recipe.model_validate({"data": {"source": "images"}})
SECONDS = 180


@pytest.fixture(scope="module")
def cluster():
    with three_nodes() as started:
        yield started


@pytest.fixture
def executor(cluster, request):
    """Open executors on the cluster, and close them in the end."""
    opened = []

    def open_executor(work, *, parallel="auto", **settings):
        config = RayConfig(**{"address": cluster.address, "cpus": 1, "retries": 1, **settings})
        opened.append(RayTasks(work, config, parallel=parallel))
        return opened[-1]

    yield open_executor
    for each in opened:
        each.close()


def task(folder, number=1):
    return Task(f"{number:03d}", folder / "trials" / f"trial-{number:03d}", RECIPE)


def ended(executor, count=1):
    found, deadline = [], time.monotonic() + SECONDS
    while len(found) < count and time.monotonic() < deadline:
        found.extend(executor.wait(0.2))
    return {one.trial_id: outcome for one, outcome in found}


def eventually(condition):
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.05)


def run_one(executor, folder):
    executor.start(task(folder))
    (outcome,) = ended(executor).values()
    return outcome


def pid_of(folder, number=1):
    path = task(folder, number).folder / "pid"
    eventually(lambda: path.exists() and path.read_text())
    return int(path.read_text())


def test_trials_run_beside_each_other_each_in_a_process_of_its_own_that_ends(executor, tmp_path):
    on_nodes = executor(ray_work.write)
    assert on_nodes.slots == 3
    for number in range(1, 5):
        on_nodes.start(task(tmp_path, number))
    outcomes = ended(on_nodes, 4)
    assert sorted(outcomes) == ["001", "002", "003", "004"]
    assert all(outcome.status == "completed" and outcome.objective == 0.5 for outcome in outcomes.values())
    assert all(outcome.place == ray.util.get_node_ip_address() for outcome in outcomes.values())
    assert all(0.2 < outcome.seconds < SECONDS for outcome in outcomes.values())
    pids = {pid_of(tmp_path, number) for number in range(1, 5)}
    assert len(pids) == 4
    assert os.getpid() not in pids
    assert len({(task(tmp_path, number).folder / "node").read_text() for number in range(1, 5)}) > 1
    eventually(lambda: not any(psutil.pid_exists(pid) for pid in pids))
    assert sorted(path.name for path in (tmp_path / "trials").iterdir()) == [f"trial-00{n}" for n in range(1, 5)]


def test_a_number_of_trials_at_a_time_is_taken_as_it_is(executor):
    assert executor(ray_work.write, parallel=2).slots == 2


@pytest.mark.slow
@pytest.mark.parametrize("work", [ray_work.kill_own_process_once, ray_work.be_stopped_once])
def test_a_trial_whose_process_is_lost_begins_anew_in_an_empty_folder(executor, tmp_path, work):
    outcome = run_one(executor(work), tmp_path)
    assert outcome.status == "completed", outcome
    assert ray_cluster.AGAIN in (task(tmp_path).folder / "trial.log").read_text()


@pytest.mark.slow
def test_a_trial_that_is_lost_again_and_again_fails_with_the_reason_and_the_next_one_runs(executor, tmp_path):
    on_nodes = executor(ray_work.kill_own_process)
    outcome = run_one(on_nodes, tmp_path)
    assert outcome.status == "failed"
    assert outcome.error == "internal: its process or its machine was lost 2 times: about to die"
    on_nodes.start(task(tmp_path, 2))
    assert list(ended(on_nodes)) == ["002"]


def test_without_retries_a_lost_trial_fails_at_once(executor, tmp_path):
    outcome = run_one(executor(ray_work.kill_own_process_once, retries=0), tmp_path)
    assert outcome.status == "failed"
    assert outcome.error == "internal: its process or its machine was lost: about to die"


@pytest.mark.slow
def test_a_trial_whose_machine_has_no_memory_left_fails_with_the_reason(tmp_path):
    with three_nodes(memory_usage_threshold=0.01, memory_monitor_refresh_ms=100) as full:
        on_nodes = RayTasks(ray_work.never_stop, RayConfig(address=full.address, cpus=1, retries=0), parallel="auto")
        outcome = run_one(on_nodes, tmp_path)
        on_nodes.close()
    assert outcome.status == "failed"
    assert outcome.error.startswith("resources: its machine ran out of memory")


def test_a_trial_that_fails_by_itself_is_not_run_again(executor, tmp_path):
    outcome = run_one(executor(ray_work.diverge), tmp_path)
    assert (outcome.status, outcome.error) == ("failed", "the loss is NaN")


def test_a_bug_is_that_trials_and_its_log_has_the_traceback(executor, tmp_path):
    outcome = run_one(executor(ray_work.have_a_bug), tmp_path)
    assert outcome.status == "failed"
    assert outcome.error.startswith("internal: ZeroDivisionError: a bug of ours")
    assert "Traceback" in (task(tmp_path).folder / "trial.log").read_text()


def test_a_trial_has_the_drivers_backend_and_folder_and_only_what_it_holds(executor, tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    monkeypatch.chdir(tmp_path)
    run_one(executor(ray_work.tell_surroundings), tmp_path)
    assert (task(tmp_path).folder / "surroundings").read_text().split("\n") == ["jax", "", "1", str(tmp_path)]


@pytest.mark.slow
def test_a_trial_on_a_lost_machine_goes_to_another_and_room_follows_the_cluster(
    cluster, executor, tmp_path, monkeypatch
):
    monkeypatch.setattr(ray_cluster, "_ROOM_SECONDS", 0.0)
    lost = add_node(cluster).node_id
    on_nodes = executor(ray_work.write_when_allowed)
    assert on_nodes.slots == 4
    for number in range(1, 5):
        on_nodes.start(task(tmp_path, number))
        pid_of(tmp_path, number)
    nodes = {number: (task(tmp_path, number).folder / "node").read_text() for number in range(1, 5)}
    number = next(number for number, node in nodes.items() if node == lost)
    remove_node(cluster, lost)
    eventually(lambda: on_nodes.slots == 3)
    (tmp_path / "trials" / "go").touch()
    outcomes = ended(on_nodes, 4)
    assert [outcome.status for outcome in outcomes.values()] == ["completed"] * 4
    for each, node in nodes.items():
        same = (task(tmp_path, each).folder / "node").read_text() == node
        assert same == (each != number)
    assert ray_cluster.AGAIN in (task(tmp_path, number).folder / "trial.log").read_text()


@pytest.mark.slow
def test_a_closed_executor_leaves_nothing_running(executor, tmp_path, monkeypatch):
    monkeypatch.setattr(ray_cluster, "_STOP_SECONDS", 3.0)
    for number, work in ((1, ray_work.go_on_until_stopped), (2, ray_work.never_stop)):
        on_nodes = executor(work)
        on_nodes.start(task(tmp_path, number))
        pid = pid_of(tmp_path, number)
        on_nodes.close()
        eventually(lambda pid=pid: not psutil.pid_exists(pid))
    assert (task(tmp_path).folder / "stopped").exists()
    assert sorted(path.name for path in (tmp_path / "trials").iterdir()) == ["trial-001", "trial-002"]


DRIVER = """
import sys
from pathlib import Path
import ray_work
from imagetune.recipe.schema import Recipe
from imagetune.recipe.sections.search import RayConfig
from imagetune.search.executors.protocol import Task
from imagetune.search.executors.ray_cluster import RayTasks

executor = RayTasks(ray_work.never_stop, RayConfig(address=sys.argv[1], cpus=1), parallel="auto")
recipe = Recipe.model_validate({"data": {"source": "images"}})
executor.start(Task("001", Path(sys.argv[2]) / "trials" / "trial-001", recipe))
while True:
    executor.wait(1.0)
"""


def test_a_driver_that_is_killed_leaves_no_trial_running(cluster, tmp_path):
    variables = {**os.environ, "PYTHONPATH": str(Path(ray_work.__file__).parent)}
    driver = subprocess.Popen([sys.executable, "-c", DRIVER, cluster.address, str(tmp_path)], env=variables)
    pid = pid_of(tmp_path)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    eventually(lambda: not psutil.pid_exists(pid))


def test_signals_stay_what_they_were(executor):
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    executor(ray_work.write)
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


@pytest.mark.slow
def test_a_machine_that_cannot_run_trials_ends_the_search_with_the_reason(executor, tmp_path, monkeypatch):
    on_nodes = executor(ray_work.lack_a_library)
    on_nodes.start(task(tmp_path))
    with pytest.raises(ResourceError, match=r"machine [\d.]+: it lacks a part of imagetune: No module named 'no_such"):
        ended(on_nodes)
    on_nodes.close()
    monkeypatch.setattr(ray_cluster, "read_version", lambda: "0.0.1")
    on_nodes = executor(ray_work.write)
    on_nodes.start(task(tmp_path, 2))
    with pytest.raises(ResourceError, match=r"it has imagetune .*, the search runs with 0\.0\.1"):
        ended(on_nodes)


def test_a_trial_that_fits_no_machine_is_reported_at_once(executor):
    with pytest.raises(ResourceError, match="no machine of the Ray cluster has the 2 processors") as error:
        executor(ray_work.write, cpus=2)
    assert error.value.exit_code == 5
    with pytest.raises(ResourceError, match="has the 1 processor and 0.5 GPUs"):
        executor(ray_work.write, gpus=0.5)
    assert not ray.is_initialized()


def test_another_version_of_ray_is_reported(executor, monkeypatch):
    monkeypatch.setattr(ray, "__version__", "2.0.0")
    with pytest.raises(ResourceError, match=r"Version mismatch: .*Ray: 2\.0\.0") as error:
        executor(ray_work.write)
    assert len(error.value.lines()) == 1
    assert not ray.is_initialized()


@pytest.mark.parametrize("address", ["127.0.0.1:1", "no-such-host.invalid:6379", "127.0.0.1:99999"])
def test_a_cluster_that_does_not_answer_is_reported_in_bounded_time(address):
    began = time.monotonic()
    with pytest.raises(ResourceError, match=f"{address}: no Ray cluster answers: .*ray start --head") as error:
        RayTasks(ray_work.write, RayConfig(address=address), parallel="auto")
    assert error.value.exit_code == 5
    assert time.monotonic() - began < 15


def test_ray_client_is_refused(monkeypatch):
    with pytest.raises(ValidationError, match="Ray Client"):
        RayConfig(address="ray://head:10001")
    monkeypatch.setenv("RAY_ADDRESS", "ray://head:10001")
    with pytest.raises(ResourceError, match="Ray Client"):
        RayTasks(ray_work.write, RayConfig(), parallel="auto")


@pytest.mark.parametrize(
    ("resources", "cpus", "gpus", "room"),
    [
        ({"CPU": 8.0}, 2, 0, 4),
        ({"CPU": 8.0, "GPU": 4.0}, 2, 1, 4),
        ({"CPU": 8.0, "GPU": 4.0}, 2, 2, 2),
        ({"CPU": 8.0, "GPU": 1.0}, 2, 0.5, 2),
        ({"CPU": 8.0}, 2, 1, 0),
        ({"GPU": 1.0}, 1, 0, 0),
    ],
)
def test_a_machine_has_room_for_what_it_holds_entirely(resources, cpus, gpus, room):
    assert ray_cluster._count_fitting(resources, RayConfig(cpus=cpus, gpus=gpus)) == room


def test_gpus_are_whole_ones_or_a_part_of_one():
    assert RayConfig(gpus=0.25).gpus == 0.25
    with pytest.raises(ValidationError, match="1.5 GPUs"):
        RayConfig(gpus=1.5)


@pytest.mark.slow
def test_ray_is_imported_only_where_it_is_asked_for():
    code = "import sys, imagetune.search.session; sys.exit('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
