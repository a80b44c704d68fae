import csv
import json
import shutil
import signal

import pytest
from pyarrow import parquet


def test_folders_files_and_patterns_are_taken(fitted, images, imagetune):
    _, run = fitted
    outcome = imagetune("predict", run, images / "red", str(images / "blue" / "blue0[0-2].png"), "--json")
    lines = [json.loads(line) for line in outcome.out.splitlines()]
    assert len(lines) == 13
    for line in lines:
        assert set(line) == {"path", "label", "probabilities", "error"}
        assert sum(line["probabilities"].values()) == pytest.approx(1, abs=1e-5)
        assert line["label"] == max(line["probabilities"], key=line["probabilities"].get)


def test_a_bad_image_gets_an_error_and_the_others_their_prediction(fitted, images, workplace, imagetune):
    mixed = workplace / "mixed"
    mixed.mkdir()
    shutil.copy(images / "red" / "red00.png", mixed / "good.png")
    (mixed / "cut.png").write_bytes((images / "red" / "red00.png").read_bytes()[:200])
    (mixed / "page.jpg").write_text("<html>not found</html>")
    lines = [json.loads(line) for line in imagetune("predict", fitted[1], mixed, "--json").out.splitlines()]
    by_name = {line["path"].rsplit("/", 1)[-1]: line for line in lines}
    assert by_name["good.png"]["error"] is None
    assert by_name["cut.png"]["label"] is None
    assert by_name["cut.png"]["error"]
    assert by_name["page.jpg"]["error"]


@pytest.mark.parametrize("more", [(), ("--json",), ("--csv", "out.csv")])
def test_images_of_which_none_can_be_read_end_as_an_error_after_their_reasons(fitted, workplace, imagetune, more):
    (workplace / "page.jpg").write_text("<html>not found</html>")
    outcome = imagetune("predict", fitted[1], workplace / "page.jpg", *more)
    assert outcome.code == 3
    assert "none of the images can be read" in outcome.err
    assert "page.jpg" in ((workplace / "out.csv").read_text() if "--csv" in more else outcome.out)


def test_csv_has_a_column_a_class(fitted, images, workplace, imagetune):
    out = workplace / "out.csv"
    assert imagetune("predict", fitted[1], images / "red", "--csv", out).code == 0
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["path", "label", "blue", "green", "red", "error"]
    assert len(rows) == 10


def test_a_missing_run_and_a_missing_image_are_distinguished(fitted, workplace, imagetune):
    outcome = imagetune("predict", "runs/none", workplace)
    assert (outcome.code, "no such run folder" in outcome.err) == (9, True)
    outcome = imagetune("predict", fitted[1], workplace / "none.png")
    assert outcome.code == 3
    assert "none.png" in outcome.err


def test_a_model_that_was_changed_is_refused(fitted, images, workplace, imagetune):
    copy = workplace / "copy"
    shutil.copytree(fitted[1], copy)
    weights = copy / "model" / "model.weights.h5"
    weights.write_bytes(weights.read_bytes()[:-100])
    outcome = imagetune("predict", copy, images)
    assert outcome.code == 9
    assert outcome.err.startswith("error[model-file]")


def test_no_image_is_written_over(fitted, images, workplace, imagetune):
    folder = workplace / "mine"
    shutil.copytree(images / "red", folder)
    (folder / "red00.png").rename(folder / "red00.jpg")
    before = {path: path.read_bytes() for path in folder.iterdir()}
    (workplace / "link.csv").symlink_to(folder / "red00.jpg")
    outcome = imagetune("predict", fitted[1], folder, "--csv", folder / "red01.png")
    assert outcome.code == 2
    assert "is there already and is no .csv file" in outcome.err
    outcome = imagetune("predict", fitted[1], folder, "--csv", workplace / "link.csv")
    assert outcome.code == 3
    assert "never overwrites" in outcome.err
    outcome = imagetune("explain", fitted[1], folder, "--out", folder)
    assert (outcome.code, outcome.out) == (3, "")
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_a_csv_says_how_many_images_it_holds(fitted, images, workplace, imagetune):
    shutil.copytree(images / "red", workplace / "mine")
    (workplace / "mine" / "empty.png").touch()
    outcome = imagetune("predict", fitted[1], "mine", "--csv", "out.csv")
    assert outcome.err.strip() == "written     out.csv: 11 images, 1 of them can't be read"


def write_table(folder, images):
    (folder / "list.csv").write_text("path,note\n" + "".join(f"{image},x\n" for image in images))
    return folder / "list.csv"


def test_a_table_of_paths_has_a_row_for_each_of_its_rows_in_each_format(fitted, images, workplace, imagetune):
    table = write_table(workplace, [images / "red" / "red01.png", "none.png", images / "red" / "red01.png"])
    for kind in ("csv", "jsonl", "parquet"):
        assert imagetune("predict", fitted[1], table, f"--{kind}", f"out.{kind}").code == 0
    with (workplace / "out.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == [
        str(images / "red/red01.png"),
        str(workplace / "none.png"),
        rows[0]["path"],
    ]
    assert rows[0] == rows[2] != rows[1]
    assert rows[1]["error"] == "no such file"
    lines = [json.loads(line) for line in (workplace / "out.jsonl").read_text().splitlines()]
    found = parquet.read_table(workplace / "out.parquet").to_pylist()
    for row, line, typed in zip(rows, lines, found, strict=True):
        assert row["path"] == line["path"] == typed["path"]
        assert (row["label"] or None) == line["label"] == typed["label"]
        assert (float(row["red"]) if row["red"] else None) == line["probabilities"].get("red") == typed["red"]


def test_a_stopped_table_is_kept_and_gone_on_with(fitted, images, workplace, imagetune, monkeypatch):
    from imagetune.core import growing_file

    table = write_table(workplace, sorted(images.rglob("*.png")) * 4)
    assert imagetune("predict", fitted[1], table, "--csv", "whole.csv").code == 0
    monkeypatch.setattr(growing_file, "_COMMIT_SECONDS", 0.0)
    add = growing_file.GrowingFile.add

    def stop(self, content, rows):
        add(self, content, rows)
        if self.rows == 32:
            signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(growing_file.GrowingFile, "add", stop)
        outcome = imagetune("predict", fitted[1], table, "--csv", "out.csv")
    assert outcome.code == 143
    kept = int(outcome.err.split("kept")[1].split()[0])
    assert 32 <= kept < 120
    assert f"kept        {kept} of 120 rows; the same command with --resume goes on" in outcome.err
    assert not (workplace / "out.csv").exists()
    outcome = imagetune("predict", fitted[1], table, "--csv", "out.csv")
    assert (outcome.code, f"has {kept} rows kept in out.csv.partial" in outcome.err) == (6, True)
    outcome = imagetune("predict", fitted[1], images, "--csv", "out.csv", "--resume")
    assert (outcome.code, "was made with other images" in outcome.err) == (6, True)
    assert imagetune("predict", fitted[1], table, "--csv", "out.csv", "--resume").code == 0
    assert (workplace / "out.csv").read_bytes() == (workplace / "whole.csv").read_bytes()
    assert not (workplace / "out.csv.partial").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--json", "--csv", "out.csv"), "--csv and --json exclude each other"),
        (("--resume",), "--resume needs --csv, --jsonl or --parquet"),
        (("--json", "--no-probabilities"), "--no-probabilities needs --csv"),
        (("--jsonl", "out.jsonl", "--ood"), "--ood needs --csv or --parquet"),
    ],
)
def test_options_that_do_not_go_together_are_refused(fitted, images, imagetune, words, message):
    outcome = imagetune("predict", fitted[1], images, *words)
    assert (outcome.code, message in outcome.err) == (2, True)


def test_a_table_for_a_full_device_says_so(fitted, images, imagetune):
    outcome = imagetune("predict", fitted[1], images / "red", "--csv", "/dev/full")
    assert (outcome.code, "No space left on device" in outcome.err) == (5, True)
