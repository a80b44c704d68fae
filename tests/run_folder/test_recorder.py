"""What a run's folder says of how the run ended."""

import signal

import pytest

from imagetune.core import run_files
from imagetune.errors import CheckpointError, StoppedError
from imagetune.run_folder.folder import RunFolder, check_run_place
from imagetune.run_folder.recorder import record_failure


@pytest.mark.parametrize(
    ("file", "continuation"),
    [
        (run_files.SEARCH, "go on with it by the same command and --run-dir {} --resume"),
        (run_files.RECIPE, "a fit can't be gone on with: the same command with a new run folder begins again"),
    ],
)
def test_a_stopped_run_and_the_same_command_again_say_how_to_go_on(tmp_path, file, continuation):
    folder = RunFolder(tmp_path)
    (tmp_path / file).write_text("{}", "utf-8")
    with pytest.raises(StoppedError) as stopped, record_failure(folder):
        raise StoppedError(signal.SIGINT)
    assert str(stopped.value) == f"{tmp_path}: stopped by SIGINT; {continuation.format(tmp_path)}"
    assert folder.read_status()["error"] == str(stopped.value)
    with pytest.raises(CheckpointError) as again:
        check_run_place(tmp_path)
    assert again.value.what == "the folder holds a run that is killed"
    assert again.value.hint == continuation.format(tmp_path)
