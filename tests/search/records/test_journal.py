"""The journal of a search, as crashes and people leave it."""

import pytest

from imagetune.errors import CheckpointError
from imagetune.search.records.journal import Ended, Journal, Proposed, find_unfinished, list_results
from imagetune.search.records.trial import Trial, TrialResult

RATE = ("train", "stages", 0, "learning_rate")


@pytest.fixture
def journal(tmp_path):
    journal = Journal(tmp_path / "journal.jsonl")
    for name in ("001", "002"):
        journal.add(Proposed(Trial(name, {RATE: 0.1})))
    journal.add(Ended(TrialResult(Trial("001", {RATE: 0.1}), "completed", 0.5, 0.0, 1.0)))
    return journal


def test_every_cut_of_the_last_line_leaves_the_lines_before_it(journal):
    whole = journal.path.read_bytes()
    last = whole.rstrip(b"\n").rfind(b"\n") + 1
    for cut in (last, last + 1, len(whole) - 2, len(whole) - 1):
        journal.path.write_bytes(whole[:cut])
        events = journal.read()
        assert [trial.trial_id for trial in find_unfinished(events)] == ["001", "002"]
        assert not list_results(events)
        # What is added next begins on a line of its own.
        journal.add(Ended(TrialResult(Trial("002", {RATE: 0.1}), "completed", 0.7, 0.0, 1.0)))
        assert [result.objective for result in list_results(journal.read())] == [0.7]


@pytest.mark.parametrize(
    "line", ["12", "null", '"text"', "[]", "{}", "\0\0\0\0", '{"event": "ended", "trial_id": "009"}']
)
def test_a_line_that_is_no_event_is_named(journal, line):
    with journal.path.open("a") as file:
        file.write(line + "\n")
    with pytest.raises(CheckpointError, match="can't be read") as caught:
        journal.read()
    assert caught.value.where == f"{journal.path}:4"
