"""Trials on a Ray cluster: a task each, which Ray alone places, runs and starts again when its machine is lost."""

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

from imagetune.core.version import read_version
from imagetune.errors import ResourceError
from imagetune.recipe.search import RayConfig
from imagetune.search.executors.attempts import attempt, close_claim, open_claim, sees_claim
from imagetune.search.executors.deaths import last_line
from imagetune.search.executors.processes import limit_threads, log_beside, print_to, settled_log, told
from imagetune.search.executors.protocol import Outcome, Task, Work

AGAIN = "an earlier attempt at this trial was lost, see interrupted/: it begins anew"
_STOP_SECONDS = 20.0
_CONNECT_SECONDS = 10.0
# How long a prediction to "what is the cluster made of" is good for.
_ROOM_SECONDS = 2.0
_INSTALL = "pip install 'imagetune[ray]'"
_START = "start one with `ray start --head`, or name its address in search.ray.address; see docs/cluster.md"
# What changes the results of a trial, and so must be the driver's on every machine.
_CARRIED = ("KERAS_BACKEND",)


@dataclass(frozen=True)
class _Terms:
    """What every trial of a search runs under.

    Attributes:
        search: A text that no other search has.
        version: The driver's imagetune.
        folder: The driver's working folder, which relative paths of a recipe start from.
        variables: Environment variables.
        cpus: Processors that a trial holds.
        gpus: GPUs that a trial holds.
    """

    search: str
    version: str
    folder: Path
    variables: Mapping[str, str]
    cpus: int
    gpus: float


@dataclass(frozen=True)
class _Unfit:
    """A machine that can't run trials of this search, whatever their settings.

    Attributes:
        place: The machine.
        what: What is wrong with it.
        hint: What to do about it.
    """

    place: str
    what: str
    hint: str


class _LostError(Exception):
    """Something on its machine ended the trial: Ray may start it again."""


@dataclass(frozen=True)
class _Open:
    task: Task
    began: float


def check_cluster(config: RayConfig) -> None:
    """Make sure that trials can run, before any work is done.

    Raises:
        ResourceError: Ray isn't installed, the cluster can't be reached or runs other versions, or none of its machines
            is large enough for a trial.
    """
    if (address := _address(config)) == "local":
        _import_ray(address, config.retries)
        return
    ray = _connected(config)
    room = _room(ray, config)
    ray.shutdown()
    if room == 0:
        raise _too_small(config)


class RayTasks:
    """An executor that hands every trial to Ray as a task with its processors, GPUs and retries.

    Args:
        work: Runs a trial.
        config: The cluster, and what a trial holds and may cost.
        parallel: How many at a time; ``auto`` is what the cluster has room for, asked again as machines come and go.

    Raises:
        ResourceError: Ray isn't installed, the cluster can't be reached or runs other versions, or none of its machines
            is large enough for a trial.
    """

    def __init__(self, work: Work, config: RayConfig, *, parallel: int | Literal["auto"]) -> None:
        self._ray = _connected(config)
        self._config = config
        self._parallel = parallel
        self._asked, self._room = time.monotonic(), _room(self._ray, config)
        if self._room == 0:
            self._ray.shutdown()
            raise _too_small(config)
        variables = {name: os.environ[name] for name in _CARRIED if name in os.environ}
        terms = _Terms(secrets.token_hex(8), read_version(), Path.cwd(), variables, config.cpus, config.gpus)
        self._terms = terms
        self._work = self._ray.put(pickle.dumps(work))
        # A process ends with its trial: memory comes back, on GPUs as well.
        self._remote = self._ray.remote(
            num_cpus=config.cpus,
            num_gpus=config.gpus,
            max_calls=1,
            max_retries=config.retries,
            retry_exceptions=[_LostError],
            scheduling_strategy="SPREAD",
        )(_run)
        self._open: dict[Any, _Open] = {}

    @property
    def slots(self) -> int:
        """How many trials may run at a time; one even while no machine has room, so that Ray knows what is needed."""
        if self._parallel != "auto":
            return self._parallel
        if time.monotonic() - self._asked > _ROOM_SECONDS:
            self._asked, self._room = time.monotonic(), _room(self._ray, self._config)
        return max(1, self._room)

    def start(self, task: Task) -> None:
        """Hand a task to Ray."""
        open_claim(task.folder, self._terms.search)
        named = self._remote.options(name=f"trial-{task.trial_id}")
        self._open[named.remote(self._work, task, self._terms)] = _Open(task, time.monotonic())

    def wait(self, timeout_seconds: float) -> Sequence[tuple[Task, Outcome]]:
        """Return what has ended.

        Raises:
            ResourceError: A machine can't run trials of this search, whatever their settings.
        """
        if not self._open:
            time.sleep(timeout_seconds)
            return []
        ended, _ = self._ray.wait(list(self._open), num_returns=1, timeout=timeout_seconds)
        return [self._ended(reference) for reference in ended]

    def close(self) -> None:
        """Stop what still runs, and leave the cluster."""
        for reference in self._open:
            self._ray.cancel(reference)
        if self._open:
            self._ray.wait(list(self._open), num_returns=len(self._open), timeout=_STOP_SECONDS)
        # Ray kills what still runs as its driver leaves. Cancelling by force what ends in the same moment would abort
        # this process (Ray 2.60.0: "Check failed: it != submissible_tasks_.end()").
        self._ray.shutdown()
        for one in self._open.values():
            close_claim(one.task.folder)
            settled_log(one.task)
        self._open = {}

    def _ended(self, reference: Any) -> tuple[Task, Outcome]:
        one = self._open.pop(reference)
        close_claim(one.task.folder)
        try:
            prediction = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            if "failed to import" in str(error):  # _run itself, all else is imported there
                raise _without_imagetune(error) from error
            reason = _cause(error, one.task, self._config.retries)
            return one.task, Outcome("failed", seconds=time.monotonic() - one.began, error=reason)
        settled_log(one.task)
        if isinstance(prediction, _Unfit):
            raise ResourceError(prediction.what, where=f"machine {prediction.place}", hint=prediction.hint)
        outcome: Outcome = prediction
        return one.task, outcome


def _run(work: bytes, task: Task, terms: _Terms) -> Outcome | _Unfit:
    """Run a trial: what Ray calls on one of its machines."""
    began, place = time.monotonic(), _place()
    if (unfit := _unfit(place, task, terms)) is not None:
        return unfit
    os.chdir(terms.folder)
    _prepare_environment(terms)
    with attempt(task.folder, terms.search) as again:
        print_to(log_beside(task))
        if again:
            print(AGAIN)
        try:
            run: Work = pickle.loads(work)  # noqa: S301 - what the driver has packed
            limit_threads(terms.cpus)
            outcome = run(task)
        except ImportError as error:
            return _Unfit(place, f"it lacks a part of imagetune: {error}", "install the same there as here")
        except Exception as error:  # noqa: BLE001 - a bug in one trial is that trial's
            traceback.print_exc()
            outcome = Outcome("failed", error=told(error))
        if outcome.status == "lost":
            raise _LostError(outcome.error)
    return replace(outcome, seconds=time.monotonic() - began, place=place)


def _unfit(place: str, task: Task, terms: _Terms) -> _Unfit | None:
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
    """Settle what libraries read when they are imported, which happens after this."""
    os.environ.update(terms.variables)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # TensorFlow takes every processor of a machine that the trial may hold a few of.
    for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS"):
        os.environ[name] = str(terms.cpus)
    if terms.gpus == 0:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    elif terms.gpus < 1:
        os.environ["TF_FORCE_GPU_ALLOW_GROWTH"] = "true"
        os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"


def _place() -> str:
    import ray

    gpus = ", ".join(f"gpu {number}" for number in ray.get_gpu_ids())
    return f"{ray.util.get_node_ip_address()}{', ' if gpus else ''}{gpus}"


def _cause(error: Exception, task: Task, retries: int) -> str:
    """Return in one line why Ray has no outcome of a trial."""
    times = "" if retries == 0 else f", {retries + 1} times in all"
    if type(error).__name__ == "OutOfMemoryError":
        return "resources: its machine ran out of memory; lower train.batch_size or raise search.ray.cpus"
    if isinstance(error, _LostError):
        return f"stopped: its machine ended it{times}"
    last = last_line(settled_log(task))
    return f"internal: its process or its machine was lost{times}" + (f": {last}" if last else "")


def _room(ray: Any, config: RayConfig) -> int:
    """Return how many trials the machines of the cluster have room for together."""
    return sum(_fitting(node["Resources"], config) for node in ray.nodes() if node["Alive"])


def _fitting(resources: Mapping[str, float], config: RayConfig) -> int:
    fitting = int(resources.get("CPU", 0.0) // config.cpus)
    gpus = int(resources.get("GPU", 0.0))
    if config.gpus >= 1:
        return min(fitting, int(gpus // config.gpus))
    if config.gpus > 0:
        return min(fitting, gpus * int(1 / config.gpus))
    return fitting


def _without_imagetune(error: Exception) -> ResourceError:
    last = str(error).strip().splitlines()[-1]
    hint = "install the same imagetune with its extra on every machine of the cluster"
    return ResourceError(f"a machine can't load imagetune: {last}", where="Ray cluster", hint=hint)


def _too_small(config: RayConfig) -> ResourceError:
    gpus = f" and {config.gpus:g} GPUs" if config.gpus else ""
    what = f"no machine of the Ray cluster has {config.cpus} processors{gpus}, which a trial holds"
    return ResourceError(what, where="search.ray", hint="lower search.ray.cpus or search.ray.gpus, or add a machine")


def _connected(config: RayConfig) -> Any:
    """Return the module ``ray``, connected to the cluster."""
    address = _address(config)
    if address != "local":
        _check_predictions(address)
    ray = _import_ray(address, config.retries)
    own = {"include_dashboard": False} if address == "local" else {}
    try:
        with _signals_kept():
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **own)
    except Exception as error:  # Ray has no class for them, some are Exception itself
        ray.shutdown()
        raise _refused(address, error) from error
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
    # Read when Ray is imported. It tells its makers about its use, asks a silent address for 14 minutes, and starts a
    # trial that is too large for its machine again for ever.
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
    # Of every retry Ray tells on the screen, and has no setting against it.
    ray._private.worker.print_to_stdstream = lambda *_, **__: None
    return ray


def _check_predictions(address: str) -> None:
    host, _, port = address.rpartition(":")
    if not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ResourceError(f"no Ray cluster predictions: {reason}", where=address, hint=_START) from error


def _refused(address: str, error: Exception) -> ResourceError:
    text = " ".join(str(error).split())
    if "Version mismatch" in text:
        hint = "install the cluster's versions of Ray and Python here, or these there"
        return ResourceError(text.removesuffix("."), where=address, hint=hint)
    if address == "auto":
        return ResourceError("no Ray cluster runs on this machine", where="search.ray.address", hint=_START)
    return ResourceError(f"can't join the Ray cluster: {text}", where=address, hint=_START)


@contextlib.contextmanager
def _signals_kept() -> Iterator[None]:
    """Let Ray not replace what a signal does."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):  # not the main thread
            signal.signal(signal.SIGTERM, before)
