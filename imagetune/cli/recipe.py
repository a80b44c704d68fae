"""The command `imagetune recipe`: list, copy, show, validate and compare recipes."""

from __future__ import annotations

import json
from pathlib import Path

import click

from imagetune.cli.options import overrides_option, recipe_argument
from imagetune.cli.render.lines import echo, echo_text
from imagetune.cli.render.tables import format_table


@click.group(epilog="Example: imagetune recipe copy quickstart .")
def command() -> None:
    """List, copy, show, validate and compare recipes."""


@command.command("list", epilog="Example: imagetune recipe list")
def list_recipes() -> None:
    """List the recipes that come with imagetune."""
    from imagetune.recipe.shipped import list_shipped_recipes, read_recipe_summary

    rows = [(name, read_recipe_summary(path)) for name, path in list_shipped_recipes().items()]
    echo(*format_table(rows, align="<<", indent=0))


@command.command("copy", epilog="Example: imagetune recipe copy resnet50 my-project/")
@click.argument("name")
@click.argument("folder", type=click.Path(path_type=Path), metavar="DIR")
def copy(name: str, folder: Path) -> None:
    """Copy the shipped recipe NAME into DIR, with its images."""
    from imagetune.recipe.shipped import copy_recipe

    for path in copy_recipe(name, folder):
        if path is not None:
            echo(path)


@command.command("show", epilog="Example: imagetune recipe show quickstart -o train.stages=lp_ft")
@recipe_argument
@overrides_option
def show(recipe: Path, overrides: tuple[str, ...]) -> None:
    """Print RECIPE, a file or the name of a shipped recipe, as YAML with every default written out."""
    from imagetune.recipe.printing import format_recipe
    from imagetune.recipe.shipped import find_recipe
    from imagetune.runs.checks.recipe import load_checked_recipe

    echo_text(format_recipe(load_checked_recipe(find_recipe(recipe), overrides).recipe))


@command.command("validate", epilog="Example: imagetune recipe validate recipe.yaml")
@recipe_argument
@overrides_option
def validate(recipe: Path, overrides: tuple[str, ...]) -> None:
    """Check the keys, values, backbone and augmentation of RECIPE, a file or the name of a shipped recipe.

    If there are mistakes, each gets a line, and the exit code is 2.
    """
    from imagetune.core.text import format_count
    from imagetune.recipe.shipped import find_recipe
    from imagetune.runs.checks.recipe import load_checked_recipe

    loaded = load_checked_recipe(find_recipe(recipe), overrides)
    spaces = f", {format_count(len(loaded.spaces), 'search space')}" if loaded.spaces else ""
    echo(f"{recipe}: valid ({format_count(len(loaded.recipe.train.stages), 'stage')}{spaces})")


@command.command("schema", epilog="Example: imagetune recipe schema > recipe.schema.json")
def schema() -> None:
    """Print the JSON schema of recipes, by which editors complete and check them."""
    from imagetune.recipe.printing import json_schema

    echo_text(json.dumps(json_schema(), indent=2))


@command.command("diff", epilog="Example: imagetune recipe diff a.yaml runs/NAME/recipe.yaml")
@click.argument("first", type=click.Path(path_type=Path))
@click.argument("second", type=click.Path(path_type=Path))
def diff(first: Path, second: Path) -> None:
    """Print the keys whose values differ between the recipes FIRST and SECOND, defaults included.

    Each is a file or the name of a shipped recipe.
    """
    from imagetune.recipe.loading import load_recipe
    from imagetune.recipe.printing import compare_recipes
    from imagetune.recipe.shipped import find_recipe

    left_recipe, right_recipe = (load_recipe(find_recipe(path)).recipe for path in (first, second))
    for key, left, right in compare_recipes(left_recipe, right_recipe):
        echo(f"{key}: {json.dumps(left, ensure_ascii=False)} -> {json.dumps(right, ensure_ascii=False)}")
