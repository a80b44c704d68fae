from imagetune.cli.render.robustness import build_tenth_callback, format_robustness


def metric(value, low=None, high=None):
    return {"value": value, "low": low, "high": high}


DOCUMENT = {
    "measure": "balanced_accuracy",
    "images": 12,
    "severities": [1, 5],
    "clean": metric(0.9, 0.8, 1.0),
    "corruptions": [{"name": "gaussian_noise", "mean": metric(0.5, 0.4, 0.6), "lost": metric(0.4)}],
    "mean_corruption_error": metric(0.5),
    "relative_error": metric(0.4),
}


def test_each_corruption_shows_the_metric_and_its_decrease():
    assert list(format_robustness(DOCUMENT)) == [
        "corrupted   12 test images at severity 1, 5",
        "                  balanced accuracy     decrease",
        "  uncorrupted     0.900 [0.800, 1.000]",
        "  gaussian noise  0.500 [0.400, 0.600]     0.400",
        "mean error  0.500 over the common corruptions, not divided by AlexNet's",
        "relative    0.400 more than on uncorrupted images",
    ]


def test_an_error_increases_and_has_no_common_mean():
    document = DOCUMENT | {"measure": "mae", "mean_corruption_error": None}
    lines = list(format_robustness(document))
    assert lines[1].split() == ["mae", "increase"]
    assert not any(line.startswith("mean error") for line in lines)


def test_each_tenth_is_said_once():
    said = []
    progress = build_tenth_callback(lambda *message: said.append(message))
    for done in range(0, 101, 5):
        progress(done, 100)
    assert said[0] == ("corrupted", "10 of 100 images")
    assert len(said) == 10
