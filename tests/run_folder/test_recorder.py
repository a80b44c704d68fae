"""What a run's folder says of how the run ended."""

import signal

import pytest

from imagetune.errors import CheckpointError, StoppedError
from imagetune.run_folder.folder import RunFolder, check_run_place
from imagetune.run_folder.recorder import record_failure


def test_a_stopped_run_and_the_same_command_again_say_how_to_go_on(tmp_path):
    folder, continuation = RunFolder(tmp_path), f"go on with it by the same command with --run-dir {tmp_path} --resume"
    folder.recipe.write_text("{}", "utf-8")
    with pytest.raises(StoppedError) as stopped, record_failure(folder):
        raise StoppedError(signal.SIGINT)
    assert str(stopped.value) == f"{tmp_path}: stopped by SIGINT; {continuation}"
    assert folder.read_status()["error"] == str(stopped.value)
    with pytest.raises(CheckpointError) as again:
        check_run_place(tmp_path)
    assert again.value.what == "the folder holds a run that is killed"
    assert again.value.hint == continuation
