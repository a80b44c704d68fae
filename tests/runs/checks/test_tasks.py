import pytest

from imagetune.errors import RecipeError
from imagetune.runs.checks.recipe import load_checked_recipe
from imagetune.runs.checks.tasks import check_classes


def problems(tmp_path, *overrides, search=""):
    path = tmp_path / "recipe.yaml"
    path.write_text(f"data: {{source: x, image_size: 32}}\n{search}", encoding="utf-8")
    try:
        load_checked_recipe(path, overrides)
    except RecipeError as error:
        return [str(one) for one in (error, *error.also)]
    return []


@pytest.mark.parametrize(
    ("task", "losses"),
    [
        ("single_label", {"cross_entropy", "focal"}),
        ("multi_label", {"cross_entropy", "focal"}),
        ("ordinal", {"squared_emd", "cross_entropy"}),
        ("regression", {"huber", "mse", "mae"}),
    ],
)
def test_a_loss_must_fit_the_task(tmp_path, task, losses):
    for loss in ("auto", "cross_entropy", "focal", "squared_emd", "huber", "mse", "mae"):
        found = problems(tmp_path, f"data.task={task}", f"train.loss={loss}")
        assert bool(found) == (loss not in {"auto", *losses})
        assert all(f"the loss {loss} is not for {task}" in text for text in found)


@pytest.mark.parametrize("task", ["multi_label", "regression"])
@pytest.mark.parametrize(
    "override",
    [
        "train.class_weights=balanced",
        "train.sampling=balanced",
        "train.loss={logit_adjustment: 1.0}",
        "train.teacher=runs/other",
    ],
)
def test_settings_of_classes_need_one_class_an_image(tmp_path, task, override):
    (found,) = problems(tmp_path, f"data.task={task}", override)
    assert "needs one class an image" in found
    assert problems(tmp_path, override) == []


def test_numbers_have_no_classes_and_no_smoothing(tmp_path):
    found = problems(tmp_path, "data.task=regression", "train.label_smoothing=0.1", "data.classes=[a, b]")
    assert len(found) == 2


@pytest.mark.parametrize(
    ("task", "metric", "fits"),
    [
        ("single_label", "f1", True),
        ("single_label", "mae", False),
        ("ordinal", "mae", True),
        ("ordinal", "r2", False),
        ("regression", "r2", True),
        ("regression", "accuracy", False),
    ],
)
def test_a_watched_metric_must_be_one_of_the_task(tmp_path, task, metric, fits):
    task_override = f"data.task={task}"
    assert bool(problems(tmp_path, task_override, f"train.early_stopping.metric={metric}")) != fits
    stage = f"[{{name: a, epochs: 1, learning_rate: 1e-3, early_stopping: {{metric: {metric}}}}}]"
    assert bool(problems(tmp_path, task_override, f"train.stages={stage}")) != fits


def test_the_objective_of_a_search_must_be_one_of_the_task(tmp_path):
    search = "train: {label_smoothing: 0.0, optimizer: {weight_decay: {search: uniform, low: 0.0, high: 0.1}}}\n"
    (found,) = problems(tmp_path, "data.task=regression", search=search)
    assert "regression has no f1" in found
    assert problems(tmp_path, "data.task=regression", "search.objective=mae", search=search) == []


def test_a_required_metric_must_be_one_of_the_task(tmp_path):
    required = "evaluate.require=[{metric: roc_auc, value: 0.5}]"
    (found,) = problems(tmp_path, "data.task=regression", required)
    assert "regression has no roc_auc" in found
    assert problems(tmp_path, "data.task=ordinal", required) == []
    assert problems(tmp_path, "data.task=regression", "evaluate.require=[{metric: rmse, upper_bound: 5}]") == []
    (found,) = problems(tmp_path, "data.task=regression", "evaluate.require=[{metric: rmse, lower_bound: 5}]")
    assert "better when lower" in found
    (found,) = problems(tmp_path, "evaluate.require=[{metric: rmse, value: 0.5}]")
    assert "single_label has no rmse" in found


COSTS = "evaluate.costs=[[0, 1], [5, 0]]"


def test_costs_are_a_square_table_of_the_classes(tmp_path):
    assert problems(tmp_path, COSTS) == []
    assert problems(tmp_path, COSTS, "data.classes=[a, b]") == []
    (found,) = problems(tmp_path, COSTS, "data.classes=[a, b, c]")
    assert "evaluate.costs: is a table of 2 x 2 for 3 classes; the classes are, in order: a, b, c" in found
    (found,) = problems(tmp_path, "evaluate.costs=[[0, 1, 2], [5, 0]]")
    assert "is no square table: 2 rows of 2 or 3 costs" in found
    (found,) = problems(tmp_path, "evaluate.costs=[[0, 1, 2], [5, 0, 1]]")
    assert "is no square table: 2 rows of 3 costs" in found


@pytest.mark.parametrize("task", ["multi_label", "regression"])
def test_costs_need_one_class_an_image(tmp_path, task):
    (found,) = problems(tmp_path, f"data.task={task}", COSTS)
    assert "needs one class an image" in found


def test_the_class_that_matters_must_be_one(tmp_path):
    wanted = "evaluate.operating_point={positive: cta}"
    (found,) = problems(tmp_path, wanted, "data.classes=[ant, cat]")
    assert "evaluate.operating_point.positive: there is no class 'cta'; did you mean 'cat'?" in found
    assert problems(tmp_path, wanted) == []
    (found,) = problems(tmp_path, wanted, "data.task=regression")
    assert "regression has no classes" in found


def test_classes_that_only_the_images_name_are_checked_before_training(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("data: {source: x, image_size: 32}", encoding="utf-8")
    recipe = load_checked_recipe(path, [COSTS, "evaluate.operating_point={positive: cat}"]).recipe
    check_classes(recipe, ("ant", "cat"))
    with pytest.raises(RecipeError) as caught:
        check_classes(recipe, ("ant", "bee", "dog"))
    told = [str(one) for one in (caught.value, *caught.value.also)]
    assert len(told) == 2
    assert "evaluate.costs: is a table of 2 x 2 for 3 classes" in told[0]
    assert "evaluate.operating_point.positive: there is no class 'cat'" in told[1]
