"""What each version has written is read by later ones: fixtures of `format_fixtures`, opened as users do."""

import json
import shutil
from pathlib import Path

import pytest

from imagetune.core.documents import CURRENT_FORMAT, FORMAT_VERSION
from imagetune.core.files import read_json_lines
from imagetune.core.growing_file import grow_file
from imagetune.serving.certificate import read_export

FORMATS = Path(__file__).resolve().parents[1] / "fixtures/formats"
RESUME = ("fit", "recipe.yaml", "--run-dir", "stopped", "--resume")


@pytest.fixture(params=sorted(path.name for path in FORMATS.iterdir()))
def kept(request, workplace, tiny):
    """A copy of what a version has written, in the working folder."""
    shutil.copytree(FORMATS / request.param, workplace, dirs_exist_ok=True)
    return workplace


def raise_version(path):
    document = json.loads(path.read_text())
    assert document[FORMAT_VERSION] <= CURRENT_FORMAT
    path.write_text(json.dumps({**document, FORMAT_VERSION: CURRENT_FORMAT + 1}))


def test_the_current_version_has_a_fixture():
    assert (FORMATS / f"v{CURRENT_FORMAT}").is_dir()


def test_a_kept_model_predicts(kept, imagetune):
    outcome = imagetune("predict", "run", "images")
    assert outcome.code == 0, outcome.err
    assert outcome.out.count(".png") == 18


def test_a_kept_run_is_the_result_of_its_recipe(kept, imagetune):
    outcome = imagetune("fit", "recipe.yaml", "--run-dir", "run")
    assert outcome.code == 0, outcome.err
    assert "nothing is left to do" in outcome.err


def test_a_kept_stopped_run_goes_on(kept, imagetune):
    outcome = imagetune(*RESUME)
    assert outcome.code == 0, outcome.err
    assert "resumed" in outcome.err
    epochs = [[line["epoch"] for line in read_json_lines(kept / run / "metrics.jsonl")] for run in ("run", "stopped")]
    assert epochs[0] == epochs[1]


def test_a_kept_export_is_read(kept):
    assert read_export(kept / "export")


def test_a_kept_search_has_its_page(kept, imagetune):
    outcome = imagetune("report", "search")
    assert outcome.code == 0, outcome.err
    assert (kept / "search/report.html").is_file()


def test_kept_rows_are_gone_on_with(kept):
    with grow_file(kept / "rows.csv", {"model": "kept"}, resume=True) as file:
        assert file.rows == 2
        file.add(b"c.png,red\n", 1)
        file.finish(None)
    assert (kept / "rows.csv").read_text() == "path,predicted\na.png,red\nb.png,blue\nc.png,red\n"


@pytest.mark.parametrize(
    ("document", "command", "code"),
    [
        ("run/model/manifest.json", ("predict", "run", "images"), 9),
        ("run/lock.json", ("fit", "recipe.yaml", "--run-dir", "run"), 6),
        ("stopped/checkpoints/step-*/state.json", RESUME, 6),
        ("search/search.json", ("report", "search"), 9),
    ],
)
def test_a_document_of_a_later_version_is_refused_in_words(kept, imagetune, document, command, code):
    for path in kept.glob(document):
        raise_version(path)
    outcome = imagetune(*command)
    assert outcome.code == code, outcome.err
    said = " ".join(outcome.err.split())
    assert f"has format version {CURRENT_FORMAT + 1}" in said
    assert f"reads up to {CURRENT_FORMAT}" in said
    assert "pip install --upgrade" in said
