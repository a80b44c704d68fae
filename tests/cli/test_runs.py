from __future__ import annotations

import pytest

from imagetune.run_folder.folder import RunFolder


@pytest.fixture
def run(workplace) -> RunFolder:
    """A finished run with a checkpoint and a model, as far as pruning looks at it."""
    folder = RunFolder(workplace / "runs" / "drawn-1")
    (folder.checkpoints / "step-00000001").mkdir(parents=True)
    (folder.checkpoints / "step-00000001" / "start.npz").write_bytes(b"0" * 3_000_000)
    folder.recipe.write_text("name: drawn\n")
    folder.keras_file.write_bytes(b"model")
    folder.write_status("finished")
    return folder


def test_prune_lists_first_and_removes_when_told(run, imagetune):
    outcome = imagetune("runs", "prune")
    assert outcome.code == 0
    assert outcome.out.splitlines() == [
        "runs/drawn-1  checkpoints  3.0 MB",
        "3.0 MB in all; nothing was removed, --yes removes it.",
    ]
    assert run.checkpoints.exists()
    assert imagetune("runs", "prune", "--yes").out.endswith("3.0 MB freed.\n")
    assert not run.checkpoints.exists()
    assert run.keras_file.exists()
    assert imagetune("runs", "prune").out == "There is nothing to remove.\n"


def test_prune_of_a_missing_folder_says_so(workplace, imagetune):
    outcome = imagetune("runs", "prune", "nowhere")
    assert outcome.code == 9
    assert "nowhere: there is no such folder; name a run folder, or a folder with runs" in outcome.err
