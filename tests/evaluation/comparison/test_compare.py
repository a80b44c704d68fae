import numpy as np
import pytest
from scipy.stats import permutation_test, wilcoxon
from sklearn.metrics import balanced_accuracy_score, f1_score, log_loss, mean_absolute_error

from imagetune.core.multiple_testing import adjust_p_values
from imagetune.data.sources.labels import LabelRule
from imagetune.evaluation.comparison.compare import compare_predictions
from imagetune.evaluation.comparison.document import ComparedRun, build_comparison_document, round_up
from imagetune.evaluation.comparison.metrics import build_metric_function, prepare_predictions
from imagetune.evaluation.comparison.results import Churn, Closeness
from imagetune.evaluation.predictions import Predictions
from imagetune.evaluation.statistics.bootstrap import Bootstrap
from imagetune.evaluation.statistics.paired_tests import (
    compute_images_needed,
    compute_mcnemar_p_value,
    compute_min_detectable_difference,
    compute_monte_carlo_p_value,
    compute_permutation_p_value,
    permute_differences,
)

NAMES = ("blue", "green", "red")


def class_predictions(labels, predictions, *, sureness=0.8, task="single_label"):
    """Predictions that give ``sureness`` to each prediction."""
    labels, predictions = np.asarray(labels), np.asarray(predictions)
    probabilities = np.full((len(labels), 3), (1 - sureness) / 2)
    probabilities[np.arange(len(labels)), predictions] = sureness
    paths = tuple(f"{index}.png" for index in range(len(labels)))
    return Predictions(paths, labels, probabilities, NAMES, LabelRule(task))


def compare(first, second, *, groups=None, samples=400, **arguments):
    groups = np.arange(len(first.paths)) if groups is None else groups
    return compare_predictions({"A": first, "B": second}, groups=groups, bootstrap=Bootstrap(samples), **arguments)


def document_of(comparison, **runs):
    compared = [ComparedRun(key, f"runs/{key}", "recipe", "backbone", comparison.images) for key in runs]
    return build_comparison_document(comparison, runs, runs=compared, matched_by="path")


def right_and_wrong(generator, count, only_first, only_second, both_right):
    """Labels, and the predictions of two runs with these chances of being right alone or together."""
    labels = generator.integers(0, 3, count)
    draws = generator.random(count)
    first = draws < only_first + both_right
    second = (draws >= only_first) & (draws < only_first + both_right + only_second)
    wrong = (labels + 1) % 3
    return labels, np.where(first, labels, wrong), np.where(second, labels, wrong)


def test_mcnemars_test_is_that_of_a_published_example():
    # Airway hyper-responsiveness before and after stem cell transplantation (Bentur and others 2009): Fagerland,
    # Lydersen and Laake, BMC Medical Research Methodology 13:91, 2013, give 0.0703 for the exact conditional test.
    assert compute_mcnemar_p_value(1, 7) == pytest.approx(0.0703, abs=5e-5)
    assert compute_mcnemar_p_value(7, 1) == compute_mcnemar_p_value(1, 7)
    assert compute_mcnemar_p_value(0, 0) == 1.0


@pytest.mark.parametrize("seed", range(4))
def test_all_swaps_are_counted_as_scipy_counts_them(seed):
    differences = np.random.default_rng(seed).integers(-3, 5, 11)
    expected = permutation_test(
        (differences, np.zeros(11)), lambda a, b: (a - b).sum(), permutation_type="samples", n_resamples=np.inf
    )
    assert compute_permutation_p_value(differences) == pytest.approx(expected.pvalue)


def test_swaps_of_right_and_wrong_are_mcnemars_test():
    assert compute_permutation_p_value(np.array([1] * 3 + [-1] * 12 + [0] * 9)) == pytest.approx(
        compute_mcnemar_p_value(3, 12)
    )
    assert compute_permutation_p_value(np.zeros(4, np.int64)) == 1.0


def test_many_swaps_take_no_time_and_stay_chances():
    differences = np.random.default_rng(0).integers(-4, 5, 50_000)
    assert 0 < compute_permutation_p_value(differences) <= 1


def test_drawn_swaps_agree_with_counted_ones():
    generator = np.random.default_rng(3)
    scores = generator.normal(size=(2, 40)) + [[0.25], [0.0]]
    stacked = np.concatenate(scores)
    swapped = permute_differences(np.arange(40), lambda weights: stacked @ weights / 40, seed=1)
    expected = permutation_test(
        tuple(scores), lambda a, b, axis: (a - b).mean(axis=axis), permutation_type="samples", n_resamples=20_000
    )
    found = compute_monte_carlo_p_value(float(scores[0].mean() - scores[1].mean()), swapped)
    assert found == pytest.approx(expected.pvalue, abs=0.03)


def test_a_group_is_swapped_whole():
    stacked = np.arange(12.0)
    seen = []
    permute_differences(
        np.array([0, 0, 0, 1, 1, 1]), lambda weights: (seen.append(weights), stacked @ weights)[1], seed=0
    )
    kept = np.concatenate(seen[::2], axis=1)
    assert (kept[:3] == kept[0]).all() and (kept[3:6] == kept[3]).all()
    assert (kept[:6] + kept[6:] == 1).all()


@pytest.mark.parametrize(("difference", "discordant"), [(0.05, 0.15), (0.1, 0.2), (0.04, 0.05)])
def test_so_many_images_do_find_the_difference_in_four_of_five_tests(difference, discordant):
    images = round(compute_images_needed(difference, discordant, confidence=0.95))
    chances = [(discordant + difference) / 2, (discordant - difference) / 2, 1 - discordant]
    draws = np.random.default_rng(0).multinomial(images, chances, 1500)
    found = np.mean([compute_mcnemar_p_value(int(one), int(other)) < 0.05 for one, other, _ in draws])
    # Connor's formula is for the usual test; the exact one is a little more careful.
    assert 0.72 < found < 0.84
    assert compute_min_detectable_difference(images, discordant, confidence=0.95) == pytest.approx(difference, rel=0.01)


def test_no_difference_needs_no_number_and_a_rough_number_is_rounded_up():
    assert compute_images_needed(0.0, 0.1, confidence=0.95) is None
    assert [round_up(number) for number in (0.4, 7.2, 431.0, 1999.0, 2000.0)] == [1, 8, 440, 2000, 2000]


def test_metrics_of_repeated_images_are_those_of_scikit_learn():
    generator = np.random.default_rng(0)
    labels, predicted = generator.integers(0, 3, (2, 60))
    weights = generator.integers(0, 4, (60, 2)).astype(np.float32)
    predictions = class_predictions(labels, predicted)
    metrics, recalls = build_metric_function(prepare_predictions(predictions), samples=1)(weights)
    for column in range(2):
        drawn = np.repeat(np.arange(60), weights[:, column].astype(int))
        true, given = labels[drawn], predicted[drawn]
        assert metrics["accuracy"][column] == pytest.approx((true == given).mean())
        assert metrics["balanced_accuracy"][column] == pytest.approx(balanced_accuracy_score(true, given))
        assert metrics["f1"][column] == pytest.approx(f1_score(true, given, average="macro"))
        assert metrics["log_loss"][column] == pytest.approx(log_loss(true, predictions.probabilities[drawn]))
        assert recalls[1, column] == pytest.approx((given[true == 1] == 1).mean())


def test_two_runs_that_differ_are_compared_by_class_and_by_image():
    labels = np.repeat([0, 1, 2], 40)
    first, second = labels.copy(), labels.copy()
    first[:20] = 2  # the first run misses half of the blue ones
    second[40:43] = 2  # the second one some green ones
    second[118:] = 1
    first[118:] = 0  # both miss two red ones, each in its way
    runs = {"A": class_predictions(labels, first), "B": class_predictions(labels, second)}
    comparison = compare(*runs.values())
    pair = comparison.pairs[0]
    assert pair.test.method == "McNemar's exact test"
    assert pair.test.p_value == pytest.approx(compute_mcnemar_p_value(3, 20))
    churn = pair.churn
    assert isinstance(churn, Churn)
    found = (churn.changed, churn.right_to_wrong, churn.wrong_to_right, churn.both_right, churn.both_wrong)
    assert found == (25, 3, 20, 95, 2)
    difference = pair.metric("accuracy").difference
    assert difference.value == pytest.approx(-17 / 120)
    assert difference.low < -17 / 120 < difference.high < 0
    blue, green, red = pair.classes
    assert (blue.only_first, blue.only_second, blue.p_value) == (0, 20, compute_mcnemar_p_value(0, 20))
    assert blue.metric.difference.value == pytest.approx(-0.5)
    assert blue.corrected == pytest.approx(3 * compute_mcnemar_p_value(0, 20))
    assert green.p_value == pytest.approx(0.25)
    assert red.metric.difference.value == 0
    document = document_of(comparison, **runs)
    assert document["verdict"]["code"] == "different"
    assert document["verdict"]["text"].startswith("B is better than A: the accuracy of B is 14.2 points above")
    assert document["differing"]["images"] == 25
    listed = document["differing"]["listed"]
    assert listed[0]["right"] in (["A"], ["B"])
    assert [image["right"] for image in listed[-2:]] == [[], []]


def test_too_few_images_are_said_to_be_too_few():
    labels, first, second = right_and_wrong(np.random.default_rng(2), 60, 0.12, 0.1, 0.7)
    runs = {"A": class_predictions(labels, first), "B": class_predictions(labels, second)}
    verdict = document_of(compare(*runs.values()), **runs)["verdict"]
    assert verdict["code"] == "undecided"
    assert "do not differ significantly on these 60 images" in verdict["text"]
    assert "the minimum detectable difference is" in verdict["text"]


def test_equal_predictions_are_not_claimed_to_be_certain():
    labels = np.repeat([0, 1, 2], 10)
    run = class_predictions(labels, labels)
    comparison = compare(run, run)
    difference = comparison.pairs[0].metric("accuracy").difference
    # With 0 of 30 different, up to 1 - 0.025^(1/30) may be.
    assert (difference.low, difference.high) == pytest.approx((-0.1157, 0.1157), abs=1e-4)
    assert document_of(comparison, A=run, B=run)["verdict"]["code"] == "identical"
    assert not len(comparison.differing)


def test_three_runs_are_compared_each_with_each():
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 3, 300)
    wrong = (labels + 1) % 3
    runs = {
        key: class_predictions(labels, np.where(generator.random(300) < share, labels, wrong))
        for key, share in {"A": 0.6, "B": 0.9, "C": 0.62}.items()
    }
    comparison = compare_predictions(runs, groups=np.arange(300), bootstrap=Bootstrap(200))
    assert [(pair.first, pair.second) for pair in comparison.pairs] == [("A", "B"), ("A", "C"), ("B", "C")]
    assert [pair.test.corrected for pair in comparison.pairs] == adjust_p_values(
        [p.test.p_value for p in comparison.pairs]
    )
    document = document_of(comparison, **runs)
    assert [pair["better"] for pair in document["pairs"]] == ["B", None, "B"]
    assert document["verdict"]["title"] == "B is the best of these"
    assert "It beats A by" in document["verdict"]["text"]


def test_another_metric_can_decide():
    labels = np.array([0] * 90 + [1] * 6 + [2] * 6)
    first = labels.copy()
    first[90:] = 0
    second = labels.copy()
    second[:12] = 1
    runs = {"A": class_predictions(labels, first), "B": class_predictions(labels, second)}
    plain = document_of(compare(*runs.values()), **runs)
    balanced = document_of(compare(*runs.values(), metric="balanced_accuracy"), **runs)
    assert plain["verdict"]["code"] == "undecided"
    assert balanced["pairs"][0]["better"] == "B"
    assert balanced["pairs"][0]["test"]["method"] == "swap test (2,000 draws)"


def coverage(repeats, count, chances):
    """How often the interval of each metric's difference holds the true one."""
    generator = np.random.default_rng(11)
    held = dict.fromkeys(("accuracy", "balanced_accuracy", "f1"), 0)
    # Where being right doesn't hang on the class, and wrong predictions go round, all three differ by the same.
    true = chances[0] - chances[1]
    for _ in range(repeats):
        labels, first, second = right_and_wrong(generator, count, *chances)
        pair = compare(class_predictions(labels, first), class_predictions(labels, second)).pairs[0]
        for name in held:
            found = pair.metric(name).difference
            held[name] += found.low - 1e-9 <= true <= found.high + 1e-9
    return {name: times / repeats for name, times in held.items()}


@pytest.mark.slow
def test_the_paired_interval_holds_the_truth_about_as_often_as_it_says():
    found = coverage(300, 200, (0.08, 0.03, 0.8))
    # 300 repeats show the coverage to within 2.5 points.
    assert all(0.925 <= share <= 0.975 for share in found.values()), found


@pytest.mark.slow
@pytest.mark.parametrize("chances", [(0.1, 0.1, 0.7), (0.08, 0.03, 0.8), (0.03, 0.03, 0.92)])
@pytest.mark.parametrize("count", [60, 200])
def test_the_paired_interval_holds_the_truth_as_often_as_it_says(count, chances):
    found = coverage(1500, count, chances)
    assert all(0.93 <= share <= 0.97 for share in found.values()), found


def grouped_predictions(generator, groups, size, *, effect=0.0):
    """Two runs that do better or worse than each other on whole groups."""
    count = groups * size
    labels = generator.integers(0, 3, count)
    wrong = (labels + 1) % 3
    favour = np.repeat(generator.random(groups) < 0.5 + effect, size)
    alone = generator.random(count) < 0.4
    first = np.where(alone & ~favour, wrong, labels)
    second = np.where(alone & favour, wrong, labels)
    return labels, first, second, np.repeat(np.arange(groups), size)


@pytest.mark.slow
def test_groups_are_drawn_whole_so_that_intervals_and_tests_hold():
    generator = np.random.default_rng(5)
    held, false_alarms, naive_alarms, repeats = 0, 0, 0, 300
    for _ in range(repeats):
        labels, first, second, groups = grouped_predictions(generator, 25, 8)
        runs = (class_predictions(labels, first), class_predictions(labels, second))
        pair = compare(*runs, groups=groups, samples=300).pairs[0]
        difference = pair.metric("accuracy").difference
        held += difference.low <= 0 <= difference.high
        false_alarms += pair.test.p_value < 0.05
        naive_alarms += (
            compute_mcnemar_p_value(
                int((first == labels)[second != labels].sum()), int((second == labels)[first != labels].sum())
            )
            < 0.05
        )
    assert 0.92 <= held / repeats <= 0.975
    assert false_alarms / repeats <= 0.07
    # As if images of a group were independent, half of the tests would find what isn't there.
    assert naive_alarms / repeats > 0.25


@pytest.mark.slow
def test_equal_runs_are_found_different_no_more_often_than_the_test_says():
    generator = np.random.default_rng(8)
    p_values = {"accuracy": [], "log_loss": []}
    for _ in range(150):
        labels, first, second = right_and_wrong(generator, 120, 0.1, 0.1, 0.7)
        runs = (class_predictions(labels, first), class_predictions(labels, second))
        noisy = [_shaken(run, generator) for run in runs]
        for metric, found in p_values.items():
            found.append(compare(*noisy, samples=100, metric=metric).pairs[0].test.p_value)
    assert np.mean(np.array(p_values["accuracy"]) < 0.05) <= 0.06
    assert 0.01 <= np.mean(np.array(p_values["log_loss"]) < 0.05) <= 0.10
    assert 0.4 < np.mean(p_values["log_loss"]) < 0.6


def _shaken(predictions, generator):
    scores = np.log(predictions.probabilities) + generator.normal(0, 0.2, predictions.probabilities.shape)
    probabilities = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    return Predictions(predictions.paths, predictions.labels, probabilities, NAMES)


def test_ordinal_runs_are_compared_by_how_far_off_they_are():
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 3, 150)
    near = np.clip(labels + (generator.random(150) < 0.3), 0, 2)
    far = np.where(generator.random(150) < 0.3, 2 - labels, labels)
    runs = {key: class_predictions(labels, found, task="ordinal") for key, found in {"A": near, "B": far}.items()}
    comparison = compare(*runs.values())
    assert comparison.metric == "mae"
    pair = comparison.pairs[0]
    distances = np.abs(near - labels) - np.abs(far - labels)
    assert pair.metric("mae").difference.value == pytest.approx(distances.mean())
    assert pair.test.method == "exact swap test"
    assert pair.test.p_value == pytest.approx(compute_permutation_p_value(distances))
    assert document_of(comparison, **runs)["pairs"][0]["better"] == "A"


def test_runs_with_several_labels_are_compared_by_their_f1():
    generator = np.random.default_rng(0)
    targets = generator.integers(0, 2, (120, 3)).astype(float)
    targets[:3] = np.eye(3)

    def predictions(share, threshold):
        right = generator.random(targets.shape) < share
        probabilities = np.where(right, targets, 1 - targets) * 0.4 + 0.3
        paths = tuple(f"{index}.png" for index in range(120))
        unknown = np.full(120, -1)
        rule = LabelRule("multi_label")
        return Predictions(paths, unknown, probabilities, NAMES, rule, targets, (threshold,) * 3)

    runs = {"A": predictions(0.75, 0.5), "B": predictions(0.95, 0.6)}
    comparison = compare(*runs.values())
    pair = comparison.pairs[0]
    expected = [f1_score(targets, run.given, average="macro") for run in runs.values()]
    assert pair.metric("f1").difference.value == pytest.approx(expected[0] - expected[1])
    right = [(run.given == (targets >= 0.5))[:, 0] for run in runs.values()]
    assert pair.classes[0].p_value == pytest.approx(
        compute_mcnemar_p_value(int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum()))
    )
    assert document_of(comparison, **runs)["pairs"][0]["better"] == "B"


def test_numbers_are_compared_by_their_errors():
    generator = np.random.default_rng(0)
    true = generator.uniform(0, 100, 90)

    def predictions(noise):
        given = (true + generator.normal(0, noise, 90)).reshape(-1, 1)
        paths = tuple(f"{index}.png" for index in range(90))
        return Predictions(
            paths, np.full(90, -1), given, ("age",), LabelRule("regression", value_name="age"), true.reshape(-1, 1)
        )

    runs = {"A": predictions(5.0), "B": predictions(8.0)}
    comparison = compare(*runs.values())
    pair = comparison.pairs[0]
    errors = [np.abs(run.probabilities[:, 0] - true) for run in runs.values()]
    assert pair.metric("mae").first == pytest.approx(mean_absolute_error(true, runs["A"].probabilities))
    churn = pair.churn
    assert isinstance(churn, Closeness)
    assert churn.first_closer == (errors[0] < errors[1]).sum()
    low = true <= np.quantile(true, 1 / 3)
    assert pair.classes[0].images == low.sum()
    assert pair.classes[0].p_value == pytest.approx(wilcoxon((errors[0] - errors[1])[low]).pvalue)
    document = document_of(comparison, **runs)
    assert document["pairs"][0]["better"] == "A"
    assert len(document["differing"]["listed"]) == 90


def test_classes_without_a_disagreement_leave_a_difference_of_their_means_open():
    # Two images of a class on which both runs agree: one of them may still find all of it where the other finds none.
    labels = np.repeat([0, 1], [60, 2])
    first = np.where((np.arange(62) % 20 == 0) & (labels == 0), 2, labels)
    pair = compare(class_predictions(labels, first), class_predictions(labels, labels)).pairs[0]
    found = {metric.name: metric.difference for metric in pair.metrics}
    assert found["balanced_accuracy"].value == pytest.approx(-0.025)
    # Clopper and Pearson: none of two still allows 0.84 of many, which is half as much in the mean of two classes.
    assert found["balanced_accuracy"].low == pytest.approx(-0.025 - (1 - 0.025 ** (1 / 2)) / 2)
    assert found["balanced_accuracy"].high == pytest.approx(-0.025 + (1 - 0.025 ** (1 / 2)) / 2)
    assert found["f1"].high > 0.3
    # A share of all images rests on no class.
    assert found["accuracy"].high < 0.05
