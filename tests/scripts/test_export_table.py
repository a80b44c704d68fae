"""The table of backbones and formats in docs/export.md: what is measured is kept, and measured once."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from scripts import export_table  # noqa: E402

SAME, OTHER = {"difference": 2.4e-6, "labels": 1.0, "at": 1}, {"difference": 0.31, "labels": 0.875, "at": 1}
FAILED = {"error": "no kernel | for this operator", "at": 1}


@pytest.fixture
def rows(tmp_path, monkeypatch):
    file = tmp_path / "rows.json"
    file.write_text(json.dumps({"vgg16": {"litert": SAME, "litert-int8": OTHER}, "dinov2_small": {"litert": FAILED}}))
    monkeypatch.setattr(export_table, "ROWS", file)
    return file


def test_the_table_says_what_differs_what_failed_and_what_was_not_tried(rows, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["export_table", "--table", "--targets", "litert,litert-int8"])
    export_table.main()
    assert capsys.readouterr().out.splitlines()[2:] == [
        "| dinov2_small | 70 | no kernel / for this operator | not tried |",
        "| vgg16 | 64 | 2e-06 | 3e-01, 88% of the labels |",
    ]


def test_what_was_measured_is_not_measured_again(rows, monkeypatch, capsys):
    before = rows.read_text()
    monkeypatch.setattr(sys, "argv", ["export_table", "vgg16", "--targets", "litert,litert-int8"])
    export_table.main()
    assert rows.read_text() == before


def test_a_process_that_dies_costs_its_cell_alone(rows):
    """There is no such backbone, so that its process ends at once."""
    export_table._measure_missing("none_such", ["litert", "onnx"], again=False)
    assert export_table.read_rows()["none_such"]["litert"]["error"] == "the process ended with 1"


def test_shipped_rows_are_of_backbones_and_targets_that_exist():
    names = {backbone.name for backbone in export_table.list_backbones()}
    for name, cells in export_table.read_rows().items():
        assert name in names
        assert set(cells) <= set(export_table.TARGETS)
        # No false refusal: float exports differ by rounding alone, which two deep networks with random weights amplify.
        bound = 5e-3 if name in {"efficientnet_b1", "efficientnet_b2"} else 1e-3
        for target in set(cells) & {"saved_model", "litert", "onnx"}:
            assert cells[target]["labels"] == 1.0, (name, target)
            assert cells[target].get("difference", np.inf) < bound, (name, target)
