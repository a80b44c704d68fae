"""The search's page, from folders as a search leaves them."""

import json
import re

import pytest
from browser import browse, needs_browser, sort_by_keyboard, window
from searches import write_search
from words import Page

from imagetune.errors import CheckpointError, ModelFileError
from imagetune.recipe.sections.search import ChoiceSpace, UniformSpace
from imagetune.search.report.report import write_search_report

DIVERGED = "diverged: the loss is nan at step {}"


def page_of(folder):
    return Page(write_search_report(folder).read_text(encoding="utf-8"))


def failing(number):
    return {5: DIVERGED.format(12), 9: DIVERGED.format(7), 7: "memory: <out> of memory & more"}.get(number, "")


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """A random search with all that may happen to its trials, and its page."""
    folder = write_search(tmp_path_factory.mktemp("searches") / "typical", trials=24, failing=failing)
    return folder, write_search_report(folder)


def test_the_page_stands_alone_and_is_small(searched):
    folder, path = searched
    assert path == folder / "report.html"
    assert path.stat().st_size < 1_000_000
    text = path.read_text(encoding="utf-8")
    assert "http" not in re.sub(r"http-equiv", "", text)
    assert "default-src 'none'" in text
    addresses = [address for address in Page(text).addresses if not address.startswith(("data:", "#"))]
    assert addresses
    assert all((folder / address).exists() for address in addresses)


def test_a_reviewer_finds_what_matters(searched):
    text = Page(searched[1].read_text(encoding="utf-8")).text
    for words in (
        "random",
        "20 completed, 1 stopped, 3 failed, 6 of finalists with other seeds",
        "Winner: trial 001",
        "over 3 seeds",
        "test F1 0.8610 0.7900 to 0.9100 (95% confidence interval)",
        "train.stages[0].learning_rate",
        "2 of 30: diverged: the loss is nan at step 12 trials 005, 009",
        "seed 0 seed 1 seed 2 mean",
        "2.0 at a time on average",
        "not used",
    ):
        assert words in text, words


def test_the_same_files_give_the_same_page(tmp_path):
    folder = write_search(tmp_path / "out", trials=5)
    assert write_search_report(folder).read_bytes() == write_search_report(folder).read_bytes()


def test_texts_of_a_trial_are_no_html(searched):
    text = searched[1].read_text(encoding="utf-8")
    assert "<out>" not in text
    assert "memory: &lt;out&gt; of memory &amp; more" in text


def test_the_page_changes_nothing_in_the_folder(tmp_path):
    folder = write_search(tmp_path / "out", trials=3)
    with (folder / "journal.jsonl").open("a") as file:
        file.write('{"event": "proposed", "trial')
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    path = write_search_report(folder)
    after = {found: found.read_bytes() for found in folder.rglob("*") if found.is_file() and found != path}
    assert after == before


def test_one_trial_is_enough(tmp_path):
    text = page_of(write_search(tmp_path / "out", trials=1, finalists=0)).text
    assert "Winner: trial 001" in text
    assert "Only one setting has a metric" in text
    assert "The importance of spaces is not computed" in text


def test_none_at_all_is_said(tmp_path):
    text = page_of(write_search(tmp_path / "out", trials=0, state="killed")).text
    assert "No trial has a metric yet" in text
    assert "--resume" in text


def test_when_all_failed_the_causes_are_there(tmp_path):
    folder = write_search(tmp_path / "out", trials=6, failing=DIVERGED.format, state="failed")
    text = page_of(folder).text
    assert "No trial has a metric: all 6 failed" in text
    assert "6 of 6: diverged" in text
    assert "Hyperparameter importance" not in text


def test_a_search_that_was_stopped_shows_what_there_is(tmp_path):
    text = page_of(write_search(tmp_path / "out", trials=8, unended=2, state="killed", finalists=0)).text
    assert "The same command with --resume continues it" in text
    assert "2 not ended" in text
    assert "waits for --resume" in text
    assert "has not been trained for its test yet" in text


def test_equal_metrics_matter_nothing(tmp_path):
    text = page_of(write_search(tmp_path / "out", trials=9, metric=lambda _: 0.8, noise=0.0, finalists=0)).text
    assert "no space has an effect" in text


def test_the_rungs_of_hyperband_are_one_line_of_their_settings(tmp_path):
    search = "algorithm: hyperband, objective: f1"
    folder = write_search(tmp_path / "out", trials=9, rungs=(1, 3, 8), search=search, finalists=0)
    text = write_search_report(folder).read_text(encoding="utf-8")
    assert len(re.findall(r'<path class="line', text)) == 9
    assert "hyperband granted count as a space" in text
    assert "goes on from" in text


def test_a_space_that_is_not_used_passes_below_its_axis(searched):
    text = searched[1].read_text(encoding="utf-8")
    below = re.search(r'<line class="axis" x1="0"[^>]* y1="([\d.]+)"', text)[1]
    heights = [found.split() for found in re.findall(r'data-heights="([^"]*)"', text)]
    places = [row[2] for row in heights]
    assert below in places
    assert set(places) != {below}


def test_long_settings_and_many_spaces_fit(tmp_path):
    names = [f"very_long_name_of_a_space_{number}" for number in range(11)]
    spaces = {("data", name): UniformSpace(search="uniform", low=0, high=1) for name in names}
    lists = [[{"RandomResizedCrop": {"scale": [scale, 1.0], "p": 0.5}}, "HorizontalFlip"] for scale in (0.1, 0.2)]
    spaces["data", "augmentation"] = ChoiceSpace(search="choice", values=tuple(map(json.dumps, lists)))
    folder = write_search(tmp_path / "out", trials=5, spaces=spaces, metric=lambda values: values["data", names[3]])
    text = write_search_report(folder).read_text(encoding="utf-8")
    assert len(re.findall('<rect class="brush"', text)) == 13


def test_a_folder_that_is_no_search_and_a_corrupted_one_are_refused(tmp_path):
    with pytest.raises(ModelFileError, match="no search"):
        write_search_report(tmp_path)
    folder = write_search(tmp_path / "out", trials=2)
    journal = folder / "journal.jsonl"
    journal.write_text("nonsense\n" + journal.read_text())
    with pytest.raises(CheckpointError, match="can't be read"):
        write_search_report(folder)


@needs_browser
@pytest.mark.parametrize("width", [1200, 390])
def test_a_browser_has_nothing_to_complain_of(searched, width):
    seen = browse(searched[1], width=width)
    assert not seen.console
    assert seen.page_width <= seen.window_width


@needs_browser
def test_every_column_sorts_by_the_keyboard(searched):
    columns = sort_by_keyboard(searched[1])
    assert len(columns) == 13
    for column in columns:
        column.check()


@needs_browser
def test_pointing_at_a_trial_reads_it_and_clicking_a_heading_sorts(searched):
    reading = 'document.getElementById("reading").textContent'
    line = """document.querySelector('path.line[data-trial="013"]')"""
    cells = '[...document.querySelectorAll("table.trials tbody td:nth-child(2)")]'
    with window(searched[1]) as opened:
        opened.ask(f'{line}.dispatchEvent(new PointerEvent("pointerover", {{bubbles: true}}))')
        assert opened.ask(reading).startswith("trial 013: 0.8")
        opened.ask('document.querySelector("svg.parallel").dispatchEvent(new PointerEvent("pointerleave"))')
        assert opened.ask(reading).strip().startswith("Point at a line")
        opened.ask('document.querySelectorAll("table.trials th button")[1].click()')
        shown = opened.ask(f"{cells}.map((cell) => cell.dataset.value)")
        told = [float(value) for value in shown if value]
        assert told == sorted(told)
        assert shown[len(told) :] == [""] * 3
        assert not opened.console


@needs_browser
def test_dragging_along_an_axis_keeps_the_lines_that_pass_there(searched):
    # A drag of a script has no pointer that could be captured.
    drag = """(from, to) => {
      const chart = document.querySelector("svg.parallel"), brush = [...chart.querySelectorAll("rect.brush")].pop();
      chart.scrollIntoView();
      const box = brush.getBoundingClientRect();
      brush.setPointerCapture = () => {};
      const send = (name, share) => brush.dispatchEvent(
        new PointerEvent(name, {clientX: box.x, clientY: box.y + share * box.height}));
      send("pointerdown", from); send("pointermove", to); send("pointerup", to);
      return [...chart.querySelectorAll("path.out")].map((line) => line.dataset.trial);
    }"""
    with window(searched[1]) as opened:
        left_out = opened.ask(f"({drag})(0.0, 0.33)")
        assert "001" not in left_out
        assert {"002", "005", "023"} <= set(left_out)
        assert opened.ask(f"({drag})(0.5, 0.5)") == []
        assert not opened.console
