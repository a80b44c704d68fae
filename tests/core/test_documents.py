import json
import os

import pytest

from imagetune.core.documents import check_document, name_foreign_document, read_document, read_document_lines
from imagetune.core.run_documents import AUDIT, EPOCH, EVALUATION, LOCK, STATUS
from imagetune.errors import CheckpointError, ModelFileError

METRIC = {"value": 0.5, "low": 0.4, "high": 0.6, "method": "wilson"}


def test_a_document_comes_back_with_what_its_shape_does_not_name_in_its_own_order(tmp_path):
    document = {"later": [1, {"x": 2}], "splits": {"test": {"images": 3, "metrics": {"f1": METRIC}}}, "class_names": []}
    (tmp_path / "evaluation.json").write_text(json.dumps(document))
    found = read_document(tmp_path / "evaluation.json", EVALUATION)
    assert json.dumps(found) == json.dumps(document)
    assert read_document(tmp_path / "gone.json", EVALUATION) == {}


@pytest.mark.parametrize(
    ("shape", "document", "message"),
    [
        (LOCK, {"images": [1]}, "field images: Input should be a valid dictionary; it is \\[1\\]"),
        (LOCK, {"images": {"a.png": 3}}, "field images.a.png: Input should be a valid string; it is 3"),
        (LOCK, {"platform": {"memory_bytes": "x"}}, "field platform.memory_bytes"),
        (STATUS, {"pid": 2**40}, "field pid: Input should be less than"),
        (STATUS, ["finished"], "the document: Input should be a valid dictionary"),
        (EVALUATION, {"splits": {"test": {"metrics": {}}}}, "field splits.test.images: Field required"),
        (EVALUATION, {"splits": {"test": {"images": 1, "metrics": {"f1": 0.5}}}}, "field splits.test.metrics.f1"),
        (EVALUATION, {"splits": {"test": {"images": True, "metrics": {}}}}, "field splits.test.images"),
        (
            EVALUATION,
            {"splits": {"val": {"images": 1, "metrics": {}, "confusion_matrix": [[1, 2]]}}},
            "rows are not as long",
        ),
        (EVALUATION, {"class_names": "ab"}, "field class_names"),
        (AUDIT, {"findings": [{"paths": "a.png"}]}, "field findings.0.paths"),
    ],
)
def test_the_first_field_of_another_kind_is_named(shape, document, message):
    with pytest.raises(ModelFileError, match=message) as caught:
        check_document(document, shape, "run/x.json")
    assert caught.value.where == "run/x.json"
    assert caught.value.hint


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[" * 100_000, b'{"a": NaN}', b'{"a": "\\ud800"}', b'{"a": \xff}', b"1" * 5000, b"\0\0", b"[1]"],
)
def test_what_is_no_object_in_json_is_refused_in_the_error_of_the_caller(tmp_path, content):
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        read_document(tmp_path / "x.json", STATUS, error=CheckpointError)
    assert caught.value.where == str(tmp_path / "x.json")


def test_pipes_and_folders_are_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for place, message in ((tmp_path / "pipe", "it is a pipe"), (tmp_path, "a folder|Is a directory")):
        with pytest.raises(ModelFileError, match=message):
            read_document(place, STATUS)
        with pytest.raises(ModelFileError, match=message):
            read_document_lines(place, EPOCH)


def test_a_line_of_another_kind_is_named_by_its_number(tmp_path):
    line = {"stage": "head", "epoch": 1, "step": 3, "train": {}, "val": {"f1": 0.5}, "learning_rate": None}
    good = json.dumps(line | {"images_per_second": 9.0})
    (tmp_path / "metrics.jsonl").write_text(f"{good}\n{good}\n{{cut")
    assert len(read_document_lines(tmp_path / "metrics.jsonl", EPOCH)) == 2
    (tmp_path / "metrics.jsonl").write_text(f"{good}\n{json.dumps(line)}\n")
    with pytest.raises(ModelFileError, match="field images_per_second: Field required") as caught:
        read_document_lines(tmp_path / "metrics.jsonl", EPOCH)
    assert caught.value.where.endswith("metrics.jsonl:2")
    (tmp_path / "metrics.jsonl").write_text(f"{good}\n[]\n")
    with pytest.raises(ModelFileError, match="line 2: it is no object"):
        read_document_lines(tmp_path / "metrics.jsonl", EPOCH)


def test_a_surprise_is_said_to_come_from_the_document(tmp_path):
    refused = pytest.raises(ModelFileError, match="a part isn't what imagetune writes: KeyError: 'bins'")
    with refused, name_foreign_document(tmp_path, "a part"):
        {}["bins"]
    # What is no surprise of values stays what it is.
    with pytest.raises(CheckpointError), name_foreign_document(tmp_path, "a part"):
        raise CheckpointError("in use")
