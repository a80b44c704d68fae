"""No hostile or unlucky input runs anything, overwrites anything, exceeds its bounds or ends in a bug."""

import pytest

from tests.faults.attack.catalog import empty_folder, find_cases, is_quick
from tests.faults.attack.keeper import meet


def _marked(case):
    return pytest.param(case, id=case.name, marks=[] if is_quick(case) else [pytest.mark.slow])


@pytest.mark.parametrize("case", [_marked(case) for case in find_cases()])
def test_case_ends_within_bounds_and_in_plain_words(case, tmp_path, shared, watcher):
    outcome, problems = meet(case, tmp_path / "case", shared, watcher)
    assert not problems, outcome.output[-2000:]
    empty_folder(tmp_path / "case")
