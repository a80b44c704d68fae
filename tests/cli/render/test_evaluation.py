from imagetune.cli.render.evaluation import format_evaluation, format_run, format_use


def metric(value, low=None, high=None):
    return {"value": value, "low": low, "high": high}


def document(**more):
    metrics = {"accuracy": metric(0.8, 0.7, 0.9), "balanced_accuracy": metric(0.75), "roc_auc": metric(None)}
    return {"task": "multi_class", "splits": {"test": {"images": 20, "metrics": metrics}}, **more}


def test_metrics_come_with_their_intervals_and_missing_ones_are_left_out():
    lines = list(format_evaluation(document(verdict={"text": "The model is right."})))
    assert lines[1:] == [
        "  accuracy           0.800  [0.700, 0.900]",
        "  balanced accuracy  0.750",
        "verdict     The model is right.",
    ]


def test_without_a_test_split_there_is_nothing_to_show():
    assert list(format_evaluation({})) == []


def test_a_requirement_that_is_met_is_shown_with_its_threshold():
    met = {"metric": "accuracy", "lower_bound": 0.6, "upper_bound": None, "value": None, "found": 0.7, "met": True}
    lines = list(format_evaluation(document(requirements=[met, met | {"met": False}])))
    assert [line for line in lines if line.startswith("required")] == [
        "required    accuracy: lower bound 0.7000 meets the threshold 0.6"
    ]


def test_folds_have_mean_interval_and_range():
    metrics = {"f1": {"mean": 0.5, "low": 0.4, "high": 0.6, "min": 0.45, "max": 0.55}}
    lines = list(format_evaluation(document(folds={"count": 3, "images": 30, "metrics": metrics})))
    assert lines[-3].startswith("folds       3 folds, 30 images")
    assert lines[-1].split() == ["F1", "0.500", "[0.400,", "0.600]", "0.450", "0.550"]


def test_what_was_averaged_is_named():
    lines = list(format_evaluation(document(tta=["horizontal_flip"])))
    assert "tta         mean over test-time augmentations: horizontal_flip" in lines
    members = [{"run": "runs/a", "tta": []}, {"run": "runs/b", "tta": ["zoom_in"]}]
    lines = list(format_evaluation(document(members=members, tta=["zoom_in"])))
    assert [line for line in lines if line.startswith(("member", "tta"))] == [
        "member      runs/a",
        "member      runs/b, test-time augmentation: zoom_in",
    ]


def test_a_run_is_shown_with_the_commands_that_come_next(tmp_path):
    assert list(format_run(tmp_path)) == [f"report      {tmp_path / 'report.html'}", "review      imagetune ui"]
    assert format_use(tmp_path).startswith(f"use         imagetune predict {tmp_path} ")


def test_the_classes_that_are_left_without_seen_images_are_named():
    seen = {"images": 0, "near_duplicates": 0, "notes": [], "left_out": {"images": 30, "near_duplicates": 0}}
    shown = document(seen=seen)
    classes = [{"class": "cat", "images": 12}, {"class": "dog", "images": 8}, {"class": "owl", "images": 0}]
    shown["splits"]["test"]["per_class"] = classes
    assert "classes     cat (12), dog (8) are left; none of owl" in list(format_evaluation(shown))
    shown["splits"]["test"]["per_class"] = classes[:2]
    assert not [line for line in format_evaluation(shown) if line.startswith("classes")]
