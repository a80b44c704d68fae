import os
import signal
import subprocess
import sys

import pytest

from imagetune.core.stopping import ask_before_each, check_stop
from imagetune.errors import StoppedError
from imagetune.training.setup.stopping import listen_for_requeue, listen_for_stop


def test_a_signal_raises_nothing_where_it_comes_and_stops_the_work_at_its_next_boundary():
    done = []
    with pytest.raises(StoppedError) as caught, listen_for_stop():
        signal.raise_signal(signal.SIGTERM)
        done.append("the rest of this step")
        check_stop()
        done.append("the next step")
    assert caught.value.exit_code == 143
    assert done == ["the rest of this step"]


def test_a_signal_inside_a_destructor_is_not_lost():
    class Model:
        def __del__(self):
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(StoppedError) as caught, listen_for_stop():
        model = Model()
        del model
    assert caught.value.exit_code == 130


def test_a_signal_after_the_last_boundary_still_decides_how_the_command_ends():
    finished = False
    with pytest.raises(StoppedError), listen_for_stop():
        finished = True
        signal.raise_signal(signal.SIGTERM)
    assert finished


def test_no_boundary_of_a_deferring_block_stops_it():
    with pytest.raises(StoppedError), listen_for_stop() as stop:
        with stop.deferred():
            signal.raise_signal(signal.SIGINT)
            assert list(ask_before_each("ab")) == ["a", "b"]
        list(ask_before_each("ab"))
        pytest.fail("the boundary must stop the work")


def test_a_signal_waits_for_the_end_of_a_step():
    with pytest.raises(StoppedError), listen_for_stop() as stop, stop.deferred():
        os.kill(os.getpid(), signal.SIGINT)
        finished = sum(range(1000))
        stop.check()
    assert finished == 499500


def test_handlers_are_put_back():
    before = signal.getsignal(signal.SIGINT)
    with listen_for_stop():
        assert signal.getsignal(signal.SIGINT) != before
    assert signal.getsignal(signal.SIGINT) == before


def test_a_second_signal_ends_the_process_at_once():
    code = (
        "import os, signal, time\n"
        "from imagetune.training.setup.stopping import SAME_SECONDS, listen_for_stop\n"
        "with listen_for_stop() as stop, stop.deferred():\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    time.sleep(SAME_SECONDS + 0.1)\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    time.sleep(30)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=20, check=False).returncode == 130


def test_a_signal_that_comes_twice_at_the_same_moment_is_one():
    with pytest.raises(StoppedError), listen_for_stop() as stop:
        with stop.deferred():
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGTERM)
        stop.check()


def test_a_signal_that_is_not_listened_for_stays_as_it_was():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with pytest.raises(StoppedError), listen_for_stop((signal.SIGTERM,)) as stop:
            signal.raise_signal(signal.SIGINT)
            stop.check()
            assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    ("resume", "number", "code"),
    [(True, signal.SIGTERM, 75), (False, signal.SIGTERM, 143), (False, signal.SIGUSR1, 75)],
)
def test_a_scheduler_is_told_to_run_the_command_again(resume, number, code):
    with pytest.raises(StoppedError) as caught, listen_for_requeue(resume=resume, max_seconds=None):
        signal.raise_signal(number)
        check_stop()
    assert caught.value.exit_code == code


def test_the_work_stops_when_its_time_is_over_and_can_be_gone_on_with():
    expected = pytest.raises(StoppedError, match="its time is over")
    with expected as caught, listen_for_requeue(resume=False, max_seconds=0.02):
        while True:
            check_stop()
    assert caught.value.exit_code == 75


def test_work_that_is_done_is_not_requeued():
    with listen_for_requeue(resume=True, max_seconds=0.001) as stop:
        signal.raise_signal(signal.SIGTERM)
    assert stop.signal_number == signal.SIGTERM
