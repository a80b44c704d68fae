import numpy as np
import pytest
from scipy.stats import binomtest, ttest_1samp

from imagetune.evaluation.statistics.intervals import Estimate, estimate_share
from imagetune.evaluation.statistics.paired_tests import compute_images_needed
from imagetune.evaluation.statistics.power import describe_gaps, describe_power, describe_regression_power


def test_the_number_of_images_is_connors_in_a_published_example():
    # Connor, Biometrics 43 (1987): shares 0.45 and 0.05 of discordant pairs, 80% power, 5% level: 23 pairs, as
    # calculators that cite it round 22.01.
    assert compute_images_needed(0.4, 0.5, confidence=0.95) == pytest.approx(22.01, abs=0.005)


def test_so_many_images_find_the_difference_four_times_of_five():
    found = describe_power(estimate_share(164, 200, 0.95), 200, confidence=0.95)
    needed = {row["difference"]: row["images"] for row in found["needed"]}
    assert found["discordant"] == pytest.approx(0.18)
    # McNemar's exact test on so many simulated pairs, of which 0.18 are discordant and the better one wins 0.05 more.
    generator = np.random.default_rng(0)
    better, worse = (0.18 + 0.05) / 2, (0.18 - 0.05) / 2
    pairs = generator.multinomial(needed[0.05], [better, worse, 1 - better - worse], size=2000)
    power = np.mean([binomtest(int(one), int(one + other)).pvalue < 0.05 for one, other, _ in pairs])
    # The exact test is a little more cautious than the formula.
    assert 0.74 <= power <= 0.82
    assert needed[0.02] > 6 * needed[0.05]


def test_the_min_detectable_difference_and_the_images_it_takes_agree():
    found = describe_power(Estimate(0.82, 0.76, 0.87), 550, confidence=0.95)
    assert found["min_detectable_difference"] == pytest.approx(0.05, abs=0.002)
    assert found["text"].startswith(
        "With 550 test images, the minimum detectable difference between two models like this one is about 5.1 points. "
        "Detecting 2 points would take about "
    )


def test_a_test_without_a_mistake_assumes_some():
    found = describe_power(estimate_share(40, 40, 0.95), 40, confidence=0.95)
    assert 0 < found["discordant"] < 0.1
    assert found["min_detectable_difference"] > 0.05


def test_there_is_nothing_to_say_without_a_metric():
    assert describe_power(Estimate(None), 0, confidence=0.95) is None


def test_gaps_are_the_first_split_minus_the_second():
    metrics = {
        "train": {"accuracy": Estimate(0.9, 0.87, 0.95), "roc_auc": Estimate(None)},
        "test": {"accuracy": Estimate(0.8, 0.68, 0.84), "roc_auc": Estimate(0.9, 0.8, 1.0)},
    }
    assert describe_gaps(metrics) == {
        "train_test": {
            "accuracy": {
                "value": pytest.approx(0.1),
                "low": pytest.approx(0.05),
                "high": pytest.approx(0.23),
                "method": "mover",
            }
        }
    }


def test_so_many_images_find_the_difference_of_two_errors_four_times_of_five():
    """Paired t tests of simulated absolute errors that correlate by half, as is assumed."""
    random = np.random.default_rng(0)
    errors = np.abs(random.normal(0, 3, 100_000))
    mae, rmse = Estimate(float(errors.mean())), Estimate(float(np.sqrt(np.square(errors).mean())))
    found = describe_regression_power(mae, rmse, 100, confidence=0.95)
    row = found["needed"][1]
    assert row["share"] == 0.1
    assert row["difference"] == pytest.approx(0.1 * mae.value)
    spread = errors.std()
    shared, own, other = random.normal(0, spread * 0.5**0.5, (3, 1500, row["images"]))
    pairs = (shared + own) - (shared + other) + row["difference"]
    power = np.mean(ttest_1samp(pairs, 0.0, axis=1).pvalue < 0.05)
    assert 0.77 <= power <= 0.83
    again = describe_regression_power(mae, rmse, row["images"], confidence=0.95)
    assert again["share_of_error"] == pytest.approx(0.1, rel=0.01)
    assert "between the mean absolute errors of two models like this one is about" in found["text"]
    assert describe_regression_power(Estimate(0.0), Estimate(0.0), 100, confidence=0.95) is None
