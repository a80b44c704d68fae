import os
import signal
import subprocess
import sys
import time

import pytest

from imagetune.errors import StoppedError
from imagetune.training.setup.stopping import listen_for_stop


def test_a_signal_interrupts_ordinary_work():
    with pytest.raises(StoppedError) as caught, listen_for_stop():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
    assert caught.value.exit_code == 143


def test_a_signal_waits_for_the_end_of_a_step():
    with listen_for_stop() as stop, stop.deferred():
        os.kill(os.getpid(), signal.SIGINT)
        finished = sum(range(1000))
        with pytest.raises(StoppedError):
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
        with listen_for_stop((signal.SIGTERM,)) as stop:
            signal.raise_signal(signal.SIGINT)
            stop.check()
            assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
            with pytest.raises(StoppedError):
                signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGINT, before)
