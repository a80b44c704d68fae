from __future__ import annotations

import json
import re

import pytest
import yaml
from markdown_it import MarkdownIt

from imagetune.reports.run.model_card import UNSAID, write_model_card


def card_of(folder):
    return write_model_card(folder).read_text(encoding="utf-8")


def rewrite(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_the_card_says_what_the_model_is_and_how_good(run_folder, evaluation):
    card = card_of(run_folder)
    metric = evaluation["splits"]["test"]["metrics"]["accuracy"]
    told = [
        "# Model card: clipart",
        evaluation["verdict"]["title"],
        "- backbone: efficientnet_lite0",
        "## Intended use",
        "| birds |",
        "2 families of nearly the same image",
        f"| Accuracy | {metric['value']:.3f} | {metric['low']:.3f} to {metric['high']:.3f} |",
        "## Limitations",
    ]
    places = [card.find(words) for words in told]
    assert -1 not in places
    assert places == sorted(places)


@pytest.mark.parametrize(
    ("license", "told"), [("Apache-2.0", "Apache-2.0"), (None, "unknown, see where they come from")]
)
def test_pretrained_weights_have_their_licence_in_the_card(run_folder, license, told):
    assert "licence of these weights" not in card_of(run_folder)
    rewrite(run_folder / "lock.json", weights={"source": "a.h5", "sha256": "0" * 64, "license": license})
    assert f"- licence of these weights: {told}" in card_of(run_folder)


def test_what_only_people_know_comes_from_the_recipe_or_is_said_to_be_missing(run_folder):
    assert UNSAID in card_of(run_folder)
    path = run_folder / "recipe.yaml"
    recipe = yaml.safe_load(path.read_text())
    recipe["card"] = {
        "owners": ["Ada, ada@example.org"],
        "intended_use": "Sorting drawings.",
        "out_of_scope": "Photographs.",
        "limitations": "Small images.",
        "data_origin": "The public domain.",
        "license": "MIT",
    }
    path.write_text(yaml.safe_dump(recipe))
    card = card_of(run_folder)
    assert UNSAID not in card
    assert all(
        words in card for words in ("Ada, ada@example.org", "Sorting drawings.", "Out of scope: Photographs.", "MIT")
    )


def test_a_further_section_of_the_evaluation_has_its_sentences(run_folder):
    assert "### Out-of-distribution detection" not in card_of(run_folder)
    share = {"value": 0.05, "low": 0.02, "high": 0.1}
    part = {"threshold": 3.5, "splits": {"test": {"images": 85, "flagged": share}}}
    rewrite(run_folder / "evaluation.json", out_of_distribution=part)
    told = "- 5.0% (2.0 to 10.0) of the test images are flagged as out-of-distribution.\n"
    assert f"### Out-of-distribution detection\n\n{told}" in card_of(run_folder)
    reason = "no image is flagged: 28 validation images are too few"
    rewrite(run_folder / "evaluation.json", out_of_distribution={"threshold": None, "reason": reason})
    assert "- No image is flagged: 28 validation images are too few.\n" in card_of(run_folder)


def test_names_cannot_break_the_tables(run_folder):
    path = run_folder / "evaluation.json"
    document = json.loads(path.read_text())
    document["splits"]["test"]["per_class"][0]["class"] = "a|b\n<script>"
    path.write_text(json.dumps(document))
    assert "| a\\|b &lt;script> |" in card_of(run_folder)


def test_a_run_that_failed_has_a_card_too(run_folder):
    for name in ("evaluation.json", "splits.csv", "audit.json"):
        (run_folder / name).unlink()
    rewrite(run_folder / "status.json", state="failed", error="the loss is nan")
    card = card_of(run_folder)
    assert "The model was not evaluated." in card
    assert "the loss is nan" in card


def test_a_smaller_error_is_a_gain(run_folder):
    difference = {"value": -3.0, "low": -5.0, "high": -1.0}
    metrics = {"mae": {"value": 9.0, "low": 7.0, "high": 11.0}}
    part = {"compared": "mae", "models": [{"name": "prior", "metrics": metrics, "difference": difference}]}
    rewrite(run_folder / "evaluation.json", baselines=part)
    assert "this model gains 3.000 (1.000 to 5.000)" in card_of(run_folder)
    rewrite(
        run_folder / "evaluation.json",
        baselines={
            **part,
            "compared": "r2",
            "models": [{"name": "prior", "metrics": {"r2": metrics["mae"]}, "difference": difference}],
        },
    )
    assert "this model gains -3.000 (-5.000 to -1.000)" in card_of(run_folder)


def test_a_class_or_a_card_text_is_no_link_image_or_heading(run_folder):
    hostile = "![x](http://evil.example/p.png) [log in](http://evil.example)\n# heading"
    path = run_folder / "recipe.yaml"
    recipe = yaml.safe_load(path.read_text())
    recipe["card"] = dict.fromkeys(("intended_use", "out_of_scope", "limitations", "data_origin", "license"), hostile)
    path.write_text(yaml.safe_dump(recipe))
    document = json.loads((run_folder / "evaluation.json").read_text())
    document["splits"]["test"]["per_class"][0]["class"] = hostile
    rewrite(run_folder / "evaluation.json", **{**document, "class_names": [hostile, "b"]})
    page = MarkdownIt("commonmark").enable("table").render(card_of(run_folder))
    assert "evil.example" in page
    assert not re.search("<a|<img|<h1>heading", page)
