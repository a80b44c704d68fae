from imagetune.search.results.pareto import find_pareto_front


def test_only_what_nothing_beats_is_on_the_front():
    metrics = [0.9, 0.8, 0.85, 0.7]
    costs = [[50.0, 90.0], [5.0, 10.0], [60.0, 95.0], [5.0, 12.0]]
    assert find_pareto_front(metrics, costs, larger_is_better=True) == [True, True, False, False]


def test_a_smaller_loss_is_better():
    assert find_pareto_front([0.5, 0.4], [[1.0], [1.0]], larger_is_better=False) == [False, True]


def test_equals_stay_together_and_one_cheap_side_is_enough():
    assert find_pareto_front([0.8, 0.8, 0.7], [[1.0, 2.0], [1.0, 2.0], [2.0, 1.0]], larger_is_better=True) == [True] * 3
