"""Executor of trials on a Ray cluster: each is a Ray task, which Ray places, runs and restarts on a lost machine."""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import secrets
import signal
import socket
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from imagetune.core import run_files
from imagetune.core.text import format_count
from imagetune.core.version import name_extra, read_version
from imagetune.errors import ResourceError
from imagetune.recipe.sections.search import RayConfig
from imagetune.search.executors.attempts import attempt, close_claim, open_claim, sees_claim
from imagetune.search.executors.deaths import read_last_line
from imagetune.search.executors.processes import describe_bug, limit_threads, locate_log, redirect_output, settle_log
from imagetune.search.executors.protocol import Outcome, Task, Work

AGAIN = "An earlier attempt at this trial was lost (see interrupted/); the trial starts again."
_STOP_SECONDS = 20.0
_CONNECT_SECONDS = 10.0
# How long the cluster's list of machines is reused before it is asked for again.
_ROOM_SECONDS = 2.0
_INSTALL = name_extra("ray")
_START = "start one with `ray start --head`, or name its address in search.ray.address; see docs/clusters.md"
# Variables that change a trial's results, so that every machine must have the driver's.
_CARRIED = ("KERAS_BACKEND",)


@dataclass(frozen=True)
class _Terms:
    """Settings of the driver that every trial of a search runs with, on whatever machine.

    Attributes:
        search: Random id of the search.
        version: The driver's version of imagetune.
        folder: The driver's working folder, which relative paths of a recipe start from.
        variables: Environment variables of the driver.
        cpus: Processors that a trial reserves.
        gpus: GPUs that a trial reserves, or the share of one.
    """

    search: str
    version: str
    folder: Path
    variables: Mapping[str, str]
    cpus: int
    gpus: float


@dataclass(frozen=True)
class _Unfit:
    """A machine that can't run trials of this search, whatever their settings; the search ends with this error.

    Attributes:
        place: Address of the machine.
        what: Message of the error.
        hint: How to fix it.
    """

    place: str
    what: str
    hint: str


class _LostError(Exception):
    """The trial was ended from outside, as by a machine that shuts down: Ray may start it again."""


@dataclass(frozen=True)
class _Open:
    """A task that Ray has, and when it was handed over, in seconds of the monotonic clock."""

    task: Task
    began: float


def check_cluster(config: RayConfig) -> None:
    """Check that the cluster can run trials, before any work is done.

    Raises:
        ResourceError: Ray isn't installed, the cluster can't be reached or runs other versions, or none of its machines
            is large enough for a trial.
    """
    if (address := _address(config)) == "local":
        _import_ray(address, config.retries)
        return
    ray = _connect(config)
    room = _count_room(ray, config)
    ray.shutdown()
    if room == 0:
        raise _too_small(config)


class RayTasks:
    """An executor that gives every trial to Ray as a task with its own processors, GPUs and retries.

    Args:
        work: Runs a trial.
        config: Address of the cluster, and the resources and retries of a trial.
        parallel: How many trials run at a time; ``auto`` follows the room of the cluster as machines come and go.

    Raises:
        ResourceError: Ray isn't installed, the cluster can't be reached or runs other versions, or none of its machines
            is large enough for a trial.
    """

    def __init__(self, work: Work, config: RayConfig, *, parallel: int | Literal["auto"]) -> None:
        self._ray = _connect(config)
        self._config = config
        self._parallel = parallel
        self._asked, self._room = time.monotonic(), _count_room(self._ray, config)
        if self._room == 0:
            self._ray.shutdown()
            raise _too_small(config)
        variables = {name: os.environ[name] for name in _CARRIED if name in os.environ}
        terms = _Terms(secrets.token_hex(8), read_version(), Path.cwd(), variables, config.cpus, config.gpus)
        self._terms = terms
        # Packed here and unpacked inside the task, where a package that the machine lacks is a message that names it
        # and not an error of Ray's.
        self._work = self._ray.put(pickle.dumps(work))
        # One call a process: a GPU's memory is freed only when the process that used it ends.
        self._remote = self._ray.remote(
            num_cpus=config.cpus,
            num_gpus=config.gpus,
            max_calls=1,
            max_retries=config.retries,
            # A trial that fails by itself would fail again; only one that was ended from outside is worth another
            # attempt.
            retry_exceptions=[_LostError],
            # Ray's default fills one machine to half before it uses the next one.
            scheduling_strategy="SPREAD",
        )(_run)
        self._open: dict[Any, _Open] = {}

    @property
    def slots(self) -> int:
        """How many trials may run at a time; at least one, so that an autoscaling cluster sees what is needed."""
        # More than there is room for wait inside Ray, which an autoscaler takes as a request for machines.
        if self._parallel != "auto":
            return self._parallel
        if time.monotonic() - self._asked > _ROOM_SECONDS:
            self._asked, self._room = time.monotonic(), _count_room(self._ray, self._config)
        return max(1, self._room)

    def start(self, task: Task) -> None:
        """Give a task to Ray."""
        # Before Ray has the task: a machine tells by the claim whether it shares the folder.
        open_claim(task.folder, self._terms.search)
        named = self._remote.options(name=run_files.trial_folder_name(task.trial_id))
        self._open[named.remote(self._work, task, self._terms)] = _Open(task, time.monotonic())

    def wait(self, timeout_seconds: float) -> Sequence[tuple[Task, Outcome]]:
        """Return the tasks that ended since the last call with their outcomes.

        Raises:
            ResourceError: A machine can't run trials of this search, whatever their settings.
        """
        if not self._open:
            time.sleep(timeout_seconds)
            return []
        ended, _ = self._ray.wait(list(self._open), num_returns=1, timeout=timeout_seconds)
        return [self._collect(reference) for reference in ended]

    def close(self) -> None:
        """Stop the running trials, and disconnect from the cluster."""
        for reference in self._open:
            self._ray.cancel(reference)
        if self._open:
            self._ray.wait(list(self._open), num_returns=len(self._open), timeout=_STOP_SECONDS)
        # Ray kills what still runs as its driver leaves. Cancelling by force what ends in the same moment would abort
        # this process (Ray 2.60.0: "Check failed: it != submissible_tasks_.end()").
        self._ray.shutdown()
        for one in self._open.values():
            close_claim(one.task.folder)
            settle_log(one.task)
        self._open = {}

    def _collect(self, reference: Any) -> tuple[Task, Outcome]:
        """Return the outcome of an ended task; one that Ray has lost for good is a failed trial."""
        one = self._open.pop(reference)
        close_claim(one.task.folder)
        try:
            result = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            if "failed to import" in str(error):  # of _run: other imports happen inside it
                raise _without_imagetune(error) from error
            reason = _describe_loss(error, one.task, self._config.retries)
            return one.task, Outcome("failed", seconds=time.monotonic() - one.began, error=reason)
        settle_log(one.task)
        if isinstance(result, _Unfit):
            raise ResourceError(result.what, where=f"machine {result.place}", hint=result.hint)
        outcome: Outcome = result
        return one.task, outcome


def _run(work: bytes, task: Task, terms: _Terms) -> Outcome | _Unfit:
    """Run a trial on a machine of the cluster; Ray calls this in a process of its own."""
    began, place = time.monotonic(), _name_place()
    if (unfit := _check_machine(place, task, terms)) is not None:
        return unfit
    os.chdir(terms.folder)
    _prepare_environment(terms)
    with attempt(task.folder, terms.search) as again:
        redirect_output(locate_log(task))
        if again:
            print(AGAIN)
        try:
            run: Work = pickle.loads(work)  # noqa: S301 - what the driver has packed
            limit_threads(terms.cpus)
            outcome = run(task)
        except ImportError as error:
            return _Unfit(place, f"it lacks a part of imagetune: {error}", "install the same packages there as here")
        except Exception as error:  # noqa: BLE001 - a bug in one trial is that trial's
            traceback.print_exc()
            outcome = Outcome("failed", error=describe_bug(error))
        # As an exception, since only that lets Ray start the trial again; a result would be final.
        if outcome.status == "lost":
            raise _LostError(outcome.error)
    return replace(outcome, seconds=time.monotonic() - began, place=place)


def _check_machine(place: str, task: Task, terms: _Terms) -> _Unfit | None:
    """Return why this machine can't run trials of the search; None where it can."""
    # Before the work is unpickled, which another version might misread.
    if terms.version != read_version():
        what = f"it has imagetune {read_version()}, the search runs with {terms.version}"
        return _Unfit(place, what, "install the same version on every machine")
    if not sees_claim(task.folder, terms.search):
        what = f"it doesn't see the search's folder {task.folder.parent}"
        return _Unfit(place, what, "put the run folder on storage that every machine has under the same path")
    if not terms.folder.is_dir():
        what = f"it doesn't see the working folder {terms.folder}"
        return _Unfit(place, what, "start the search in a folder that every machine has under the same path")
    return None


def _prepare_environment(terms: _Terms) -> None:
    """Set the environment variables that libraries read when they are imported, which happens after this."""
    os.environ.update(terms.variables)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # By default TensorFlow uses every core of the machine, of which the trial has reserved a few.
    for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS"):
        os.environ[name] = str(terms.cpus)
    # Without a reservation a trial would take the memory of a GPU that another one has; where several share a GPU, none
    # may take all of it at its start.
    if terms.gpus == 0:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    elif terms.gpus < 1:
        os.environ["TF_FORCE_GPU_ALLOW_GROWTH"] = "true"
        os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"


def _name_place() -> str:
    """Return the address of this machine and the GPUs that Ray gives the trial."""
    import ray

    gpus = ", ".join(f"gpu {number}" for number in ray.get_gpu_ids())
    return f"{ray.util.get_node_ip_address()}{', ' if gpus else ''}{gpus}"


def _describe_loss(error: Exception, task: Task, retries: int) -> str:
    """Return in one line why Ray has no outcome of a trial."""
    times = "" if retries == 0 else f" {retries + 1} times"
    if type(error).__name__ == "OutOfMemoryError":
        return "resources: its machine ran out of memory; lower train.batch_size or raise search.ray.cpus"
    if isinstance(error, _LostError):
        return f"stopped: its machine stopped it{times}"
    last = read_last_line(settle_log(task))
    return f"internal: its process or its machine was lost{times}" + (f": {last}" if last else "")


def _count_room(ray: Any, config: RayConfig) -> int:
    """Return how many trials the machines of the cluster have room for together."""
    return sum(_count_fitting(node["Resources"], config) for node in ray.nodes() if node["Alive"])


def _count_fitting(resources: Mapping[str, float], config: RayConfig) -> int:
    fitting = int(resources.get("CPU", 0.0) // config.cpus)
    gpus = int(resources.get("GPU", 0.0))
    if config.gpus >= 1:
        return min(fitting, int(gpus // config.gpus))
    if config.gpus > 0:
        # A share lies on one GPU: what is left over on two of them isn't room for a trial.
        return min(fitting, gpus * int(1 / config.gpus))
    return fitting


def _without_imagetune(error: Exception) -> ResourceError:
    last = str(error).strip().splitlines()[-1]
    hint = "install the same imagetune with its extra on every machine of the cluster"
    return ResourceError(f"a machine can't load imagetune: {last}", where="Ray cluster", hint=hint)


def _too_small(config: RayConfig) -> ResourceError:
    gpus = f" and {config.gpus:g} GPUs" if config.gpus else ""
    what = f"no machine of the Ray cluster has the {format_count(config.cpus, 'processor')}{gpus} that a trial needs"
    return ResourceError(what, where="search.ray", hint="lower search.ray.cpus or search.ray.gpus, or add a machine")


def _connect(config: RayConfig) -> Any:
    """Connect to the cluster, and return the module ``ray``."""
    address = _address(config)
    if address != "local":
        _check_answers(address)
    ray = _import_ray(address, config.retries)
    # A cluster that Ray starts for this search would open a port for its dashboard.
    own = {"include_dashboard": False} if address == "local" else {}
    try:
        with _signals_kept():
            # Without the output of trials, which each of them writes into its own log.
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **own)
    except Exception as error:  # Ray has no class for them, some are Exception itself
        ray.shutdown()
        raise _connection_error(address, error) from error
    return ray


def _address(config: RayConfig) -> str:
    address = config.address
    if address == "auto":
        address = os.environ.get("RAY_ADDRESS") or address
    if "://" in address:
        what = "a search can't run through Ray Client"
        raise ResourceError(what, where=address, hint="run it on a machine of the cluster, with address: auto")
    return address


def _import_ray(address: str, retries: int) -> Any:
    # Ray reads these when it is imported. By default it sends usage statistics to its makers, tries a silent address
    # for 14 minutes, and restarts a trial that is too large for its machine for ever.
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    if address != "local":
        os.environ.setdefault("RAY_NUM_REDIS_GET_RETRIES", "1")
    os.environ.setdefault("RAY_task_oom_retries", str(retries))
    try:
        import ray
        import ray._private.worker
    except ImportError as error:
        what = f"search.executor: ray needs Ray, which can't be imported: {error}"
        raise ResourceError(what, hint=_INSTALL) from error
    # Ray prints every retry on the screen, and has no setting against that.
    ray._private.worker.print_to_stdstream = lambda *_, **__: None
    return ray


def _check_answers(address: str) -> None:
    """Check that something listens at HOST:PORT: Ray itself waits for minutes."""
    host, _, port = address.rpartition(":")
    # Such as `auto`: there is no port to try.
    if not port.isdigit():
        return
    try:
        # An IPv6 address stands in brackets; a port above 65535 raises OverflowError.
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ResourceError(f"no Ray cluster answers: {reason}", where=address, hint=_START) from error


def _connection_error(address: str, error: Exception) -> ResourceError:
    text = " ".join(str(error).split())
    if "Version mismatch" in text:
        hint = "install the cluster's versions of Ray and Python here, or these there"
        return ResourceError(text.removesuffix("."), where=address, hint=hint)
    if address == "auto":
        return ResourceError("no Ray cluster runs on this machine", where="search.ray.address", hint=_START)
    return ResourceError(f"can't join the Ray cluster: {text}", where=address, hint=_START)


@contextlib.contextmanager
def _signals_kept() -> Iterator[None]:
    """Keep the handler of SIGTERM, which Ray replaces when it connects."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):  # not the main thread
            signal.signal(signal.SIGTERM, before)
