"""Slots for trials on this machine: how many run in parallel, and on which GPU or cores."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from imagetune.core.processes import count_usable_cores

_LIST_SECONDS = 20.0


@dataclass(frozen=True)
class Slot:
    """A place for one trial at a time.

    Attributes:
        place: Name for people: ``gpu 0``, ``cpu 1 of 2``.
        environment: Environment variables of its processes, over those of this one.
    """

    place: str
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Machine:
    """Resources of a machine that trials may use.

    Attributes:
        cores: Processor cores.
        gpus: Names of GPUs as CUDA_VISIBLE_DEVICES takes them.
        memory: Bytes of main memory that are free.
    """

    cores: int
    gpus: tuple[str, ...]
    memory: int


@dataclass(frozen=True)
class Needs:
    """Resources that a trial needs on processors.

    Attributes:
        cores: Cores that it keeps busy.
        memory: Bytes of main memory, roughly.
        most: Most trials in parallel: with more, a search proposes from too few results.
    """

    cores: int
    memory: int
    most: int


def this_machine(memory: int) -> Machine:
    """Return the resources of this machine, without touching a GPU: a process that has can't be forked any more.

    Args:
        memory: Bytes of main memory that are free.
    """
    return Machine(count_usable_cores(), find_visible_gpus(), memory)


def find_visible_gpus(environment: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """Return the GPUs that CUDA would show this process, by their names in CUDA_VISIBLE_DEVICES.

    Args:
        environment: Environment variables; without CUDA_VISIBLE_DEVICES there, ``nvidia-smi`` is asked.
    """
    named = environment.get("CUDA_VISIBLE_DEVICES")
    # An empty CUDA_VISIBLE_DEVICES hides every GPU, so that nvidia-smi isn't asked.
    there = _installed_gpus() if named is None or named.strip() else ()
    if named is None or not there:
        return there
    wanted = [name.strip() for name in named.split(",") if name.strip()]
    # As CUDA does: names after the first invalid one are ignored.
    cut = next((place for place, name in enumerate(wanted) if name.startswith("-")), len(wanted))
    return tuple(wanted[:cut])


def plan_slots(parallel: int | Literal["auto"], machine: Machine, needs: Needs) -> tuple[Slot, ...]:
    """Return the slots for trials on a machine.

    Threads of trials that share a processor aren't limited: with fewer threads sums are added in another order, so that
    results would depend on how many trials run at a time; and the last trial of a search may use all cores.

    Args:
        parallel: ``search.parallel`` of the recipe; ``auto`` is one trial for each GPU, or as many as the cores and the
            memory allow.
        machine: Resources of the machine.
        needs: Resources that a trial needs.
    """
    if machine.gpus:
        return _gpu_slots(len(machine.gpus) if parallel == "auto" else parallel, machine.gpus)
    count = _processor_count(machine, needs) if parallel == "auto" else parallel
    if count == 1:
        return (Slot("cpu"),)
    return tuple(Slot(f"cpu {number} of {count}") for number in range(1, count + 1))


def _processor_count(machine: Machine, needs: Needs) -> int:
    return max(1, min(machine.cores // needs.cores, machine.memory // needs.memory, needs.most))


def _gpu_slots(count: int, gpus: Sequence[str]) -> tuple[Slot, ...]:
    """Return slots that take turns on the GPUs; where several share one, none takes all of its memory at once."""
    slots = []
    for number in range(count):
        # In turns, so that two trials share a GPU only when every GPU has one.
        gpu = number % len(gpus)
        sharing = (count - gpu + len(gpus) - 1) // len(gpus)
        environment = {"CUDA_VISIBLE_DEVICES": gpus[gpu], "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}  # as nvidia-smi counts
        if sharing > 1:
            environment |= {"TF_FORCE_GPU_ALLOW_GROWTH": "true", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
        turn = f" ({number // len(gpus) + 1} of {sharing})" if sharing > 1 else ""
        slots.append(Slot(f"gpu {gpus[gpu]}{turn}", environment))
    return tuple(slots)


def _installed_gpus() -> tuple[str, ...]:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return ()
    command = [tool, "--query-gpu=index", "--format=csv,noheader"]
    try:
        listed = subprocess.run(  # noqa: S603 - a fixed command
            command, capture_output=True, text=True, check=True, timeout=_LIST_SECONDS
        )
    # A driver that fails, or doesn't answer in time, has no GPU to offer.
    except (OSError, subprocess.SubprocessError):
        return ()
    return tuple(line.strip() for line in listed.stdout.splitlines() if line.strip().isdigit())
