from imagetune.cli.render.predictions import format_explanation, format_prediction
from imagetune.commands.explain import Explanation
from imagetune.evaluation.image_predictions import ImagePrediction


def test_a_class_is_shown_with_its_probability_the_runner_up_and_the_margin():
    prediction = ImagePrediction("a.png", "red", {"red": 0.6, "blue": 0.3, "green": 0.1}, None)
    assert format_prediction(prediction) == "a.png\tred\t0.600\tthen blue 0.300\tmargin 0.300"
    chosen = ImagePrediction("a.png", "blue", {"red": 0.6, "blue": 0.4}, None)
    assert format_prediction(chosen) == "a.png\tblue\t0.400\tthen red 0.600\tmargin -0.200"


def test_sets_and_out_of_distribution_images_are_shown():
    prediction = ImagePrediction(
        "a.png", "red", {"red": 0.5}, None, prediction_set=("red", "blue"), out_of_distribution=True
    )
    assert format_prediction(prediction) == "a.png\tred\t0.500\t{red, blue}\tout-of-distribution"


def test_a_number_has_an_interval_and_no_probability():
    prediction = ImagePrediction("a.png", "4.2", {}, None, value=4.2, interval=(3.0, 5.25))
    assert format_prediction(prediction) == "a.png\t4.2\t3 to 5.25"


def test_several_labels_have_no_one_probability():
    assert format_prediction(ImagePrediction("a.png", "red|blue", {"red": 0.9, "blue": 0.8}, None)) == "a.png\tred|blue"


def test_an_image_that_cannot_be_read_says_why():
    assert format_prediction(ImagePrediction("a.png", None, {}, "is empty")) == "a.png\terror: is empty"
    assert format_explanation(Explanation("a.png", error="is empty")) == "a.png\terror: is empty"


def test_an_explanation_names_its_file_and_how_far_the_maps_agree():
    told = format_explanation(Explanation("a.png", "red", 0.91234, 0.5, "out/a.jpg"))
    assert told == "a.png\tred\t0.912\tagreement +0.50\tout/a.jpg"
    assert format_explanation(Explanation("a.png", "higher", file="o.jpg", value=12.5)).split("\t")[2:4] == [
        "12.5",
        "agreement -",
    ]
