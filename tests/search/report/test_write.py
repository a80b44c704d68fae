"""What becomes of a search's end when its page can't be written."""

import signal

import pytest
from searches import write_search

from imagetune.core.messages import say_nothing
from imagetune.errors import StoppedError
from imagetune.search.report import write
from imagetune.training.setup.stopping import listen_for_stop


@pytest.fixture
def folder(tmp_path):
    return write_search(tmp_path / "search", trials=3)


def test_a_page_that_cannot_be_written_is_reported_and_ends_nothing(folder):
    (curve,) = folder.glob("trials/trial-001/metrics.jsonl")
    curve.write_text("no json\n" + curve.read_text())
    said = []
    write.write_last_report(folder, say=lambda *message: said.append(message))
    ((topic, line),) = said
    assert topic == "warning"
    assert line.startswith("report.html could not be written: ")
    assert str(curve) in line
    assert not (folder / "report.html").exists()


def test_ctrl_c_while_the_page_is_written_ends_the_command(folder, monkeypatch):
    def interrupted(_folder):
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(write, "write_search_report", interrupted)
    with pytest.raises(StoppedError), listen_for_stop():
        write.write_last_report(folder, say=say_nothing)
