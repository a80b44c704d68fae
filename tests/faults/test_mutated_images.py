"""Mutated images of all formats are decoded or named, whatever their readers think of them."""

from __future__ import annotations

import sys

import pytest

from tests.faults.attack.mutated_images import try_mutated_images


@pytest.mark.skipif(sys.platform != "linux", reason="reads the memory from /proc")
@pytest.mark.parametrize("count", [200, pytest.param(10_000, marks=pytest.mark.slow)])
def test_mutated_images_are_decoded_or_named(count: int) -> None:
    report = try_mutated_images(count)
    assert not report.problems
    assert report.decoded + report.refused == count
    # Mutations that all were refused, or none, would test nothing.
    assert report.decoded > count // 20
    assert report.refused > count // 20
