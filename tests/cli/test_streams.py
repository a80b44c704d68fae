"""Standard streams that are closed, full or unread: nothing is lost in silence."""

import subprocess
import sys

import pytest

COMMAND = f"{sys.executable} -m imagetune recipe schema"


def run_in_shell(line):
    process = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=120, check=False)
    return process.returncode, process.stdout, process.stderr


@pytest.mark.parametrize(
    ("redirected", "code", "says"),
    [
        (">/dev/full", 5, "error[resources] standard output: can't write: No space left on device"),
        (">&-", 5, "error[resources] standard output: can't write: it is closed"),
        (">&- 2>&-", 5, ""),
        ("2>&-", 0, ""),
        ("2>/dev/full", 0, ""),
        ("<&-", 0, ""),
        ("| head -1 >/dev/null; exit ${PIPESTATUS[0]}", 141, ""),
    ],
)
def test_a_lost_answer_has_an_exit_code_and_an_error_where_there_is_room_for_one(redirected, code, says):
    found, _, err = run_in_shell(f"{COMMAND} {redirected}")
    assert found == code
    assert says in err
    assert "Traceback" not in err
    assert "Exception ignored" not in err


def test_a_command_that_failed_keeps_its_exit_code_without_a_screen():
    assert run_in_shell(f"{sys.executable} -m imagetune recipe show nosuch.yaml >&- 2>&-")[0] == 2
