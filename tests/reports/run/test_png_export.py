import re
import shutil
import warnings
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest

from imagetune.reports.plots.confusion_matrix import draw_confusion_matrix, select_shown_classes, shorten_name
from imagetune.reports.plots.learning_curves import draw_learning_curves, is_only_solved
from imagetune.reports.run.png_export import write_plots


def epochs(count, *, stages=1, val=True):
    return [
        {
            "stage": f"stage{(number - 1) * stages // count}",
            "epoch": number,
            "train": {"loss": 2 / number, "accuracy": 1 - 1 / (number + 1), "f1": 1 - 1 / (number + 1)},
            "val": {"loss": 2.5 / number, "accuracy": 1 - 1 / (number + 2), "f1": 0.5} if val else {},
            "learning_rate": 1e-3 / number**3,
        }
        for number in range(1, count + 1)
    ]


def texts(svg):
    return [re.sub("<[^>]+>", "", found).strip() for found in re.findall(r"<text.*?</text>", svg, re.DOTALL)]


def test_images_are_written_for_the_tracker(run_folder):
    written = write_plots(run_folder)
    assert [path.name for path in written] == ["learning_curves.png", "schedule.png", "confusion_matrix.png"]
    for path in written:
        height, width, _ = cv2.imread(str(path)).shape
        assert min(height, width) > 500
    before = [path.read_bytes() for path in written]
    assert [path.read_bytes() for path in write_plots(run_folder)] == before


def test_a_run_without_metrics_gets_no_images(run_folder):
    (run_folder / "metrics.jsonl").unlink()
    (run_folder / "evaluation.json").unlink()
    assert write_plots(run_folder) == ()
    assert not (run_folder / "plots").exists()


def test_curves_show_loss_accuracy_and_f1():
    drawings = draw_learning_curves(epochs(8))
    assert [drawing.title for drawing in drawings] == ["Loss", "Accuracy", "F1 (mean of the classes)"]
    for drawing in drawings:
        assert {"training", "validation"} <= set(texts(drawing.svg))


def test_stages_are_named_where_there_are_several():
    assert {"stage0", "stage1"} <= set(texts(draw_learning_curves(epochs(8, stages=2))[0].svg))
    assert "stage0" not in texts(draw_learning_curves(epochs(8))[0].svg)


def test_without_validation_only_training_is_drawn():
    assert "validation" not in texts(draw_learning_curves(epochs(4, val=False))[0].svg)


def test_one_epoch_and_a_missing_loss_can_be_drawn():
    lines = epochs(3)
    lines[1]["train"]["loss"] = None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw_learning_curves(lines)
        draw_learning_curves(lines[:1])


def test_drawings_are_the_same_every_time_and_name_no_address():
    first, again = (draw_learning_curves(epochs(5)) for _ in range(2))
    assert [drawing.svg for drawing in first] == [drawing.svg for drawing in again]
    assert not any("http" in drawing.svg for drawing in first)


def test_drawings_on_one_page_share_no_ids():
    drawings = (*draw_learning_curves(epochs(5)), draw_confusion_matrix(np.eye(3, dtype=np.int64), "abc"))
    ids = [found for drawing in drawings for found in re.findall(r'\bid="([^"]+)"', drawing.svg)]
    assert len(ids) == len(set(ids))
    for drawing in drawings:
        used = set(re.findall(r'(?:href="|url\()#([^")]+)', drawing.svg))
        assert used <= set(ids)


@pytest.mark.parametrize("classes", [2, 8, 40])
def test_the_heat_map_writes_every_count_and_name(classes):
    matrix = np.diag(np.arange(1, classes + 1))
    matrix[0, 1] = 77
    names = [f"class {index}" for index in range(classes)]
    found = texts(draw_confusion_matrix(matrix, names).svg)
    assert {str(count) for count in range(1, classes + 1)} | {"77"} <= set(found)
    assert "0" not in found
    assert sum(text in names for text in found) == 2 * classes


def test_of_very_many_classes_the_most_confused_are_shown():
    matrix = np.eye(60, dtype=np.int64)
    matrix[7, 55] = 5
    shown = select_shown_classes(matrix)
    assert len(shown) == 40
    assert {7, 55} <= set(shown.tolist())


def test_odd_names_are_text_and_nothing_else():
    names = ["<b>&", "$x$", "日本", "long " * 20]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        svg = draw_confusion_matrix(np.eye(4, dtype=np.int64), names).svg
    inner = [element.text for element in ElementTree.fromstring(svg.replace("xlink:", "")).iter("text")]
    assert {"<b>&", "$x$", "日本", shorten_name(names[3])} <= set(inner)


def test_long_names_lose_their_middle():
    assert shorten_name("short") == "short"
    assert shorten_name("abcdefghijklmnopqrstuvwxyz") == "abcdefghij…qrstuvwxyz"


def test_an_empty_row_is_no_division_by_zero():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw_confusion_matrix(np.array([[3, 0], [0, 0]]), ["a", "b"])


def test_metrics_stand_without_the_images(run_folder):
    shutil.rmtree(run_folder / "predictions")
    assert len(write_plots(run_folder)) == 3


def test_a_run_whose_head_was_only_solved_has_no_curves():
    solved = {"stage": "head", "epoch": 1, "step": 1, "learning_rate": None, "solved": {"strength": 0.1}}
    assert is_only_solved([solved])
    assert not is_only_solved([solved, {"stage": "top", "epoch": 2, "step": 9, "learning_rate": 1e-4}])
    assert not is_only_solved([])
