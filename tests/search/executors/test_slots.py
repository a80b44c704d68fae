from __future__ import annotations

import pytest

from imagetune.search.executors.slots import Machine, Needs, find_visible_gpus, plan_slots

GIB = 2**30
NEEDS = Needs(cores=1, memory=GIB, most=16)


def machine(cores=4, gpus=(), memory=64 * GIB):
    return Machine(cores, tuple(gpus), memory)


def places(parallel, on, needs=NEEDS):
    return [slot.place for slot in plan_slots(parallel, on, needs)]


def test_auto_is_one_for_each_gpu_and_each_trial_sees_one():
    slots = plan_slots("auto", machine(gpus="013"), NEEDS)
    assert [slot.place for slot in slots] == ["gpu 0", "gpu 1", "gpu 3"]
    assert [slot.environment["CUDA_VISIBLE_DEVICES"] for slot in slots] == ["0", "1", "3"]
    assert not any("TF_FORCE_GPU_ALLOW_GROWTH" in slot.environment for slot in slots)


def test_fewer_trials_than_gpus_take_the_first_ones():
    assert places(1, machine(gpus="01")) == ["gpu 0"]


def test_trials_that_share_a_gpu_leave_each_other_memory():
    slots = plan_slots(3, machine(gpus="01"), NEEDS)
    assert [slot.place for slot in slots] == ["gpu 0 (1 of 2)", "gpu 1", "gpu 0 (2 of 2)"]
    assert ["TF_FORCE_GPU_ALLOW_GROWTH" in slot.environment for slot in slots] == [True, False, True]


@pytest.mark.parametrize(
    ("on", "needs", "count"),
    [
        (machine(cores=4), NEEDS, 4),
        (machine(cores=4), Needs(cores=3, memory=GIB, most=16), 1),
        (machine(cores=2), Needs(cores=4, memory=GIB, most=16), 1),
        (machine(cores=64), NEEDS, 16),
        (machine(cores=4, memory=int(2.5 * GIB)), NEEDS, 2),
        (machine(cores=4, memory=GIB // 2), NEEDS, 1),
    ],
)
def test_auto_on_processors_is_what_cores_and_memory_have_room_for(on, needs, count):
    assert len(places("auto", on, needs)) == count


def test_a_number_is_taken_as_it_is():
    assert places(3, machine(cores=1, memory=GIB)) == ["cpu 1 of 3", "cpu 2 of 3", "cpu 3 of 3"]
    assert places(1, machine()) == ["cpu"]


@pytest.fixture
def nvidia_smi(tmp_path, monkeypatch):
    """A program of that name that lists two GPUs; the list may be replaced by what it should print."""
    program = tmp_path / "nvidia-smi"

    def prints(text, code=0):
        program.write_text(f"#!/bin/sh\nprintf '{text}'\nexit {code}\n")
        program.chmod(0o755)

    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    prints("0\\n1\\n")
    return prints


@pytest.mark.parametrize(
    ("named", "seen"),
    [
        (None, ("0", "1")),
        ("1", ("1",)),
        ("", ()),
        ("-1", ()),
        ("1,-1,0", ("1",)),
        ("GPU-5f, MIG-7a", ("GPU-5f", "MIG-7a")),
    ],
)
def test_gpus_are_those_that_cuda_would_show(nvidia_smi, named, seen):
    assert find_visible_gpus({} if named is None else {"CUDA_VISIBLE_DEVICES": named}) == seen


def test_a_driver_that_does_not_answer_is_no_gpu(nvidia_smi):
    nvidia_smi("NVIDIA-SMI has failed", code=9)
    assert find_visible_gpus({}) == ()


def test_without_a_driver_there_is_no_gpu(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_visible_gpus({}) == find_visible_gpus({"CUDA_VISIBLE_DEVICES": "0"}) == ()
