"""Options and arguments that several commands share, so that they are spelled alike everywhere."""

from __future__ import annotations

from pathlib import Path

import click

# Without `exists=True`: loading reports a missing file as it reports every other error of a recipe.
recipe_argument = click.argument("recipe", type=click.Path(path_type=Path))
# A text and no path: it may be a runs:/ or models:/ address.
run_argument = click.argument("run")
overrides_option = click.option(
    "-o",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Set a key of the recipe, such as -o train.batch_size=64; paths start in this folder; repeatable.",
)
with_option = click.option(
    "--with",
    "others",
    multiple=True,
    metavar="RUN",
    help="Another run, whose predicted probabilities are averaged with those of RUN; repeatable.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
