"""The report's section on slices."""

import json

import numpy as np
import pytest

from imagetune.evaluation.errors.slices import compare_slices
from imagetune.reports.run.report import write_report
from imagetune.reports.sections.slices import FEW_ROWS, MAX_ROWS, view_slices
from imagetune.run_folder.reader import read_run


@pytest.fixture
def tell(run_folder):
    """Write slices into a run's evaluation and return what its report shows of them."""

    def tell(right, attributes):
        path = run_folder / "evaluation.json"
        classes = np.zeros(len(right), np.int64)
        found = compare_slices(right, classes, attributes, confidence=0.95, grouped=False)
        path.write_text(json.dumps({**json.loads(path.read_text()), "slices": found}))
        return found["slices"], view_slices(read_run(run_folder))

    return tell


def cameras(random, count, names):
    return random.choice([f"c{number}" for number in range(names)], count).astype(object)


def test_without_a_finding_only_the_worst_few_are_in_sight(tell, run_folder):
    random = np.random.default_rng(1)
    rows, view = tell(random.random(400) < 0.8, {"camera": cameras(random, 400, 12), "size": random.random(400)})
    assert not any(row["worse"] for row in rows)
    assert view["rows"] == rows[:FEW_ROWS]
    assert len(view["folded"]) >= 12 + 3 - FEW_ROWS  # every single attribute is there
    assert len(view["rows"]) + len(view["folded"]) + view["left_out"] == len(rows)
    assert len(view["rows"]) + len(view["folded"]) <= MAX_ROWS + FEW_ROWS
    page = write_report(run_folder).read_text(encoding="utf-8")
    assert f"<summary>{len(view['folded'])} more slices, none of them significantly worse</summary>" in page
    assert page.index(view["rows"][-1]["name"]) < page.index(" more slices, none of them") < page.index("Other slices")


def test_whatever_is_worse_is_in_sight(tell):
    random = np.random.default_rng(2)
    camera = cameras(random, 3000, 20)
    right = random.random(3000) < np.where(np.isin(camera, [f"c{number}" for number in range(8)]), 0.4, 0.9)
    rows, view = tell(right, {"camera": camera})
    worse = [row for row in rows if row["worse"]]
    assert len(worse) == 8 > FEW_ROWS
    assert view["rows"] == worse
    assert not any(row["worse"] for row in view["folded"])


def test_few_slices_are_not_folded(tell, run_folder):
    random = np.random.default_rng(3)
    _, view = tell(random.random(100) < 0.8, {"camera": cameras(random, 100, 3)})
    assert (len(view["rows"]), view["folded"]) == (3, [])
    assert "none of them significantly" not in write_report(run_folder).read_text(encoding="utf-8")
