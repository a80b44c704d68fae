import json
import sys

import pytest

from benchmarks.side_by_side import (
    Comparison,
    machine_line,
    markdown_table,
    measure_in_turn,
    run_process,
    save_json,
    show,
    timed,
    timed_process,
)


def test_the_ratio_of_seconds_is_that_of_the_medians_and_its_spread_that_of_the_rounds():
    comparison = Comparison({"plain": [10.0, 12.0, 20.0], "ours": [5.0, 4.0, 4.0]})
    ratio = comparison.ratio("ours", "plain")
    assert (ratio.median, ratio.least, ratio.most) == (3.0, 2.0, 5.0)


def test_the_better_of_two_rates_is_the_higher():
    comparison = Comparison({"bare": [100.0], "ours": [97.0]}, unit="images/s", lower_is_better=False)
    assert comparison.ratio("ours", "bare").median == pytest.approx(0.97)


def test_sides_work_in_turn_and_every_other_round_goes_backwards():
    calls = []

    def side(name):
        return lambda: calls.append(name) or float(len(calls))

    comparison = measure_in_turn({"a": side("a"), "b": side("b")}, rounds=2, warmups=1)
    assert calls == ["b", "a", "a", "b", "b", "a"]
    assert comparison.metrics == {"a": [3.0, 6.0], "b": [4.0, 5.0]}


def test_a_table_has_a_row_a_side_and_no_ratio_for_the_base():
    table = markdown_table(Comparison({"plain": [2.0, 4.0], "ours": [1.0, 1.0]}), base="plain")
    assert table.splitlines()[2:] == [
        "| plain | 3.00 | 2.00 to 4.00 |  |  |",
        "| ours | 1.00 | 1.00 to 1.00 | 3.00 | 2.00 to 4.00 |",
    ]
    assert "s, median of 2" in table
    assert "times better than plain" in table


def test_a_process_is_timed_from_start_to_end_with_its_own_environment():
    command = [sys.executable, "-c", "import os, time; time.sleep(0.2); print(os.environ['GREETING'])"]
    finished = run_process(command, env={"GREETING": "hello"})
    assert finished.output == "hello\n"
    assert 0.2 < finished.seconds < 20
    assert timed_process(command, env={"GREETING": "hello"})() > 0.2


def test_a_process_that_fails_stops_the_benchmark_with_its_last_words():
    with pytest.raises(SystemExit, match=r"(?s)ended with 3:\nno images"):
        run_process([sys.executable, "-c", "import sys; print('no images'); sys.exit(3)"])


def test_a_callable_is_timed():
    ticks = []
    assert timed(lambda: ticks.append(1))() >= 0
    assert ticks == [1]


def test_measurements_have_three_significant_digits():
    assert [show(metric) for metric in (12345.6, 123.4, 12.34, 1.234, 0.1234)] == [
        "12,346", "123", "12.3", "1.23", "0.123",
    ]  # fmt: skip


def test_json_says_which_machine_the_measurements_are_from(tmp_path):
    comparison = Comparison({"plain": [2.0], "ours": [1.0]})
    save_json(tmp_path / "metrics.json", {"results": comparison.as_json("plain")})
    document = json.loads((tmp_path / "metrics.json").read_text())
    assert document["results"]["times_better"]["ours"]["median"] == 2.0
    assert "cores" in document["machine"]
    assert "keras" in machine_line()
    save_json(None, {})
