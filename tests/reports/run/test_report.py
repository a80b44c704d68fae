import json
import re
import shutil

import pytest
from browser import browse, needs_browser, sort_by_keyboard, window
from words import Page

from imagetune.core.documents import name_foreign_document
from imagetune.core.files import append_json_line, write_json
from imagetune.errors import ModelFileError
from imagetune.reports.run.report import write_report


def page_of(folder):
    return Page(write_report(folder).read_text(encoding="utf-8"))


def rewrite(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_the_page_stands_alone_and_is_small(run_folder):
    path = write_report(run_folder)
    assert path == run_folder / "report.html"
    assert path.stat().st_size < 5_000_000
    text = path.read_text(encoding="utf-8")
    assert "http" not in re.sub(r"http-equiv", "", text)
    assert all(address.startswith(("data:", "#")) for address in Page(text).addresses)
    assert "default-src 'none'" in text


def test_the_page_is_the_same_every_time(run_folder):
    assert write_report(run_folder).read_bytes() == write_report(run_folder).read_bytes()


def test_a_reviewer_finds_what_matters_in_order(run_folder, evaluation):
    text = page_of(run_folder).text
    metric = evaluation["splits"]["test"]["metrics"]["accuracy"]
    told = [
        "efficientnet_lite0",
        "2026-11-21 10:15",
        "Test metrics",
        f"{metric['value']:.3f}",
        f"{metric['low']:.3f}\N{EN DASH}{metric['high']:.3f}",
        evaluation["verdict"]["text"],
        "Requirements missed",
        "Learning curves",
        "Confusion matrix",
        "Metrics per class",
        "Worst mistakes",
        "2 families of nearly the same image",
        "head and last 3 blocks",
        "imagetune fit runs/clipart-20261121-101500-3f2a/recipe.yaml",
        "bootstrap_samples: 200",
        "3.15.1",
    ]
    # Behind the list of sections, which names them all.
    place = text.index("Test metrics", text.index("Environment"))
    for words in told[2:]:
        assert (place := text.find(words, place)) >= 0, words


def test_sections_are_listed_and_closed_but_for_what_matters(run_folder):
    text = write_report(run_folder).read_text()
    listed = re.findall(r'<li><a href="#(section-\d+)">(.*?)</a></li>', text)
    headings = re.findall(r"<h2>(.*?)</h2>", text)
    # A verdict, and other notices, are no sections.
    assert [title for _, title in listed] == [title for title in headings if title in dict(map(reversed, listed))]
    assert {"Recipe", "Worst mistakes", "Test metrics"} <= {title for _, title in listed}
    opened = set(re.findall(r'<section id="section-\d+">\s*<h2>(.*?)</h2>', text))
    assert opened == {
        *("Test metrics", "Requirements", "Metrics per split"),
        *("Learning curves", "Confusion matrix", "Commands"),
    }


@needs_browser
def test_a_link_of_the_list_opens_its_section(run_folder):
    opened = '[...document.querySelectorAll("details[open] h2")].map((heading) => heading.textContent)'
    with window(write_report(run_folder)) as page:
        assert page.ask(opened) == []
        page.ask(
            '[...document.querySelectorAll(".sections a")].find((a) => a.textContent === "Worst mistakes").click()'
        )
        assert page.ask(opened) == ["Worst mistakes"]


@needs_browser
@pytest.mark.parametrize("width", [390, 500])
def test_the_test_column_is_in_sight_on_a_phone(run_folder, width):
    table = "document.querySelector(\"[aria-label='Metrics per split']\")"
    with window(write_report(run_folder), width=width) as page:
        assert page.ask(f"{table}.scrollWidth - {table}.clientWidth") == 0


def test_a_dropped_stage_is_said_to_be(run_folder):
    judged = {"name": "top", "kept": False, "gain": -0.0123, "standard_error": 0.01, "required": 2.0}
    append_json_line(run_folder / "stages.jsonl", {"name": "top", "judged": judged})
    text = page_of(run_folder).text
    assert "dropped: its validation loss is 0.0123 higher than before it, 0.02 lower was needed" in text
    append_json_line(run_folder / "stages.jsonl", {"name": "top", "judged": {**judged, "gain": None}})
    assert "dropped: no epoch of it was better than the best one before" in page_of(run_folder).text


def test_counts_of_the_images_add_up(run_folder):
    rows = (run_folder / "splits.csv").read_text().splitlines()[1:]
    train, val, test = (sum(f",{side}," in row for row in rows) for side in ("train", "val", "test"))
    assert f"all {train} {val} {test} {len(rows)}" in page_of(run_folder).text


def test_the_weakest_class_comes_first(run_folder, evaluation):
    text = write_report(run_folder).read_text()
    table = text[text.index("Metrics per class") :]
    names = re.findall(r'<th scope="row" data-value="([^"]+)">', table)
    f1 = {row["class"]: row["metrics"]["f1"]["value"] for row in evaluation["splits"]["test"]["per_class"]}
    assert names[0] == min(f1, key=f1.get)


def test_each_average_stands_in_the_column_of_its_metric(run_folder, evaluation):
    table = section(write_report(run_folder).read_text(), "Metrics per class")
    columns = re.findall(r'<th scope="col"[^>]*><button type="button">([^<]+)</button>', table)
    (foot,) = re.findall(r"<tfoot>(.*?)</tfoot>", table, re.DOTALL)
    averages = evaluation["splits"]["test"]["averages"]
    assert f"{averages['macro']['precision']:.3f}" != f"{averages['macro']['recall']:.3f}"
    for row, values in zip(foot.split("</tr>"), averages.values(), strict=False):
        shown = dict(zip(columns[1:], re.findall(r"<td>(.*?)</td>", row), strict=True))
        for name, value in values.items():
            assert shown["F1" if name == "f1" else name] == f"{value:.3f}"


def section(page, title):
    """Return one section of a page."""
    return page.split(f"<h2>{title}</h2>")[1].split("</section>")[0]


def test_the_surest_mistakes_are_shown_as_images(run_folder):
    rewrite_recipe(run_folder, "mistakes: 24", "mistakes: 3")
    text = section(write_report(run_folder).read_text(), "Worst mistakes")
    assert text.count("data:image/jpeg;base64,") == 3
    sureness = [float(found) for found in re.findall(r"predicted as <b>\w+</b> ([\d.]+)%", text)]
    assert len(sureness) == 3
    assert sureness == sorted(sureness, reverse=True)


def test_no_mistakes_are_shown_where_none_are_asked_for(run_folder):
    rewrite_recipe(run_folder, "mistakes: 24", "mistakes: 0")
    assert "shows none of them" in page_of(run_folder).text


def test_vanished_images_leave_a_placeholder(run_folder, tmp_path):
    rewrite_recipe(
        run_folder, re.search("source: .*", (run_folder / "recipe.yaml").read_text())[0], f"source: {tmp_path}/gone"
    )
    text = write_report(run_folder).read_text()
    assert "data:image/jpeg" not in text
    assert section(text, "Worst mistakes").count("no such file") == 24


def test_names_are_escaped(run_folder, evaluation):
    nasty = "<script>alert(1)</script>"
    text = json.dumps(evaluation).replace('"birds"', json.dumps(nasty))
    (run_folder / "evaluation.json").write_text(text)
    splits = (run_folder / "splits.csv").read_text()
    (run_folder / "splits.csv").write_text(splits.replace(",birds,", f",{nasty},"))
    page = write_report(run_folder).read_text()
    assert nasty not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


def test_a_path_that_is_no_utf8_gets_a_question_mark(run_folder):
    path = run_folder / "predictions" / "test.csv"
    path.write_bytes(path.read_bytes().replace(b".png", b"\xff.png"))
    assert "?.png" in write_report(run_folder).read_text(encoding="utf-8")


def test_a_failed_run_is_reported_as_far_as_it_came(run_folder):
    shutil.rmtree(run_folder / "predictions")
    (run_folder / "evaluation.json").unlink()
    rewrite(run_folder / "status.json", state="failed", epoch=4, error="the loss is nan")
    text = page_of(run_folder).text
    assert "The run failed in stage top, epoch 4. The reason: the loss is nan." in text
    assert "There are no test metrics, because the run ended before its test." in text
    assert "Learning curves" in text
    assert "Metrics per class" not in text
    assert "imagetune predict" not in text


@pytest.mark.parametrize(
    ("state", "words"), [("killed", "The run was stopped"), ("running", "The run is still in progress")]
)
def test_other_ends_are_named(run_folder, state, words):
    rewrite(run_folder / "status.json", state=state)
    assert words in page_of(run_folder).text


def test_a_recipe_alone_makes_a_page(run_folder, tmp_path):
    bare = tmp_path / "bare"
    bare.mkdir()
    shutil.copy(run_folder / "recipe.yaml", bare)
    text = page_of(bare).text
    assert "No epoch was completed." in text
    assert "The run ended before its images were split." in text


def test_without_test_images_validation_is_shown_with_a_warning(run_folder, evaluation):
    del evaluation["splits"]["test"]
    (run_folder / "evaluation.json").write_text(json.dumps({**evaluation, "verdict": None, "requirements": []}))
    text = page_of(run_folder).text
    assert "Validation metrics" in text
    assert "these metrics are optimistic" in text


def test_the_mlflow_run_is_named(run_folder):
    (run_folder / "tracking.json").write_text('{"run_id": "0123abcd"}')
    assert "MLflow run 0123abcd" in page_of(run_folder).text


def test_another_folder_is_refused(tmp_path):
    with pytest.raises(ModelFileError, match=r"is no run folder: it has no recipe\.yaml"):
        write_report(tmp_path)


def test_a_corrupted_file_is_named(run_folder):
    (run_folder / "evaluation.json").write_text('{"cut')
    with pytest.raises(ModelFileError, match="can't be read: Unterminated string") as caught:
        write_report(run_folder)
    assert caught.value.where.endswith("evaluation.json")


def test_a_value_that_the_page_does_not_expect_is_named_with_its_section(run_folder, evaluation):
    write_json(run_folder / "evaluation.json", evaluation | {"calibration": {"splits": {"test": []}}})
    refused = pytest.raises(ModelFileError, match=r"a file .* isn't what imagetune writes: .* section 'calibration'")
    with refused, name_foreign_document(run_folder, "a file of the run"):
        write_report(run_folder)


def rewrite_recipe(folder, old, new):
    path = folder / "recipe.yaml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_classes_of_unequal_size_are_listed_with_their_share_of_the_loss(run_folder, evaluation):
    recipe = (run_folder / "recipe.yaml").read_text()
    assert "Class imbalance" not in page_of(run_folder).text
    changed = recipe.replace("class_weights: none", "class_weights: balanced")
    changed = changed.replace("logit_adjustment: 0.0", "logit_adjustment: 1.0")
    (run_folder / "recipe.yaml").write_text(changed)
    text = page_of(run_folder).text
    assert "Class imbalance" in text
    assert "the recipe sets class_weights: balanced, loss.logit_adjustment: 1." in text
    assert "rank correlation of training images and recall" in text
    classes = len(evaluation["class_names"])
    assert text.count(f" {100 / classes:.1f}%") >= classes  # each has the same share of the loss


def test_a_soup_lists_its_members_in_place_of_a_training(run_folder):
    def step(run, kept):
        return {"added": run, "members": [run], "val": {"accuracy": 0.81, "loss": 0.6}, "kept": kept}

    members = [{"run": "runs/a b", "kept": True}, {"run": "runs/c", "kept": False}]
    document = {"members": members, "steps": [step("runs/a b", True), step("runs/c", False)], "batch_norm": "averaged"}
    (run_folder / "soup.json").write_text(json.dumps(document))
    (run_folder / "metrics.jsonl").unlink()
    text = page_of(run_folder).text
    assert "the mean of those of 1 of 2 runs" in text
    assert "runs/c accuracy 0.810, loss 0.6000 left out" in text
    assert "imagetune soup 'runs/a b' runs/c" in text
    assert "Learning curves" not in text


def test_test_time_augmentation_is_named(run_folder):
    rewrite(run_folder / "evaluation.json", tta=["horizontal_flip", "zoom_in"])
    assert (
        "the mean over the image and its augmented copies (test-time augmentation): horizontal flip, zoom in."
        in page_of(run_folder).text
    )


@needs_browser
@pytest.mark.parametrize("width", [1200, 500])
def test_a_browser_draws_every_image_without_a_word_on_its_console(run_folder, width):
    seen = browse(write_report(run_folder), width=width)
    assert seen.console == ()
    assert seen.drawn == seen.images > 0
    assert seen.page_width <= seen.window_width


def test_every_heading_that_sorts_can_be_reached_by_keyboard(run_folder):
    text = write_report(run_folder).read_text(encoding="utf-8")
    tables = re.findall(r'<table class="sortable">.*?</thead>', text, re.DOTALL)
    assert tables
    for table in tables:
        headings = re.findall(r"<th[^>]*>(.*?)</th>", table, re.DOTALL)
        assert all('<button type="button">' in heading for heading in headings if heading.strip())


@needs_browser
@pytest.mark.parametrize("width", [1200, 390])
def test_every_table_is_sorted_by_keys_alone(run_folder, width):
    columns = sort_by_keyboard(write_report(run_folder), width=width)
    for column in columns:
        column.check()
    # Some column must really have moved its rows.
    assert any(column.rows[0] != column.rows[1] for column in columns)
    assert {"class", "images"} <= {column.heading for column in columns}
