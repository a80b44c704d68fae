"""The recipes that come with the package: listed, summarised and copied with their images."""

from __future__ import annotations

import json
import shutil
from importlib import resources
from pathlib import Path

from imagetune.core.files import convert_disk_errors, write_text
from imagetune.errors import RecipeError
from imagetune.recipe.document import parse_document
from imagetune.recipe.problems import suggest_known_word


def list_shipped_recipes() -> dict[str, Path]:
    """Return the shipped recipe files by name."""
    folder = Path(str(resources.files("imagetune.shipped")))
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def find_recipe(recipe: Path) -> Path:
    """Return the shipped recipe of a name where there is no such file; else the path itself."""
    return recipe if recipe.exists() else list_shipped_recipes().get(str(recipe), recipe)


def read_recipe_summary(path: Path) -> str:
    """Return the first comment line of a recipe, which says what it is for."""
    first = path.read_text(encoding="utf-8").split("\n", 1)[0]
    return first.removeprefix("#").strip()


def copy_recipe(name: str, folder: Path) -> tuple[Path, Path | None]:
    """Copy a shipped recipe into ``folder``, with its images if it has any; its MLflow experiment is the folder's name.

    Returns:
        Path of the new recipe, and of the new folder of images; None where the recipe has none.

    Raises:
        RecipeError: Unknown name, or a file or folder of that name exists already.
        ResourceError: The disk is full or can't be written.
    """
    recipes = list_shipped_recipes()
    if name not in recipes:
        raise RecipeError(f"no shipped recipe is called {name!r}", hint=suggest_known_word(name, recipes))
    source = recipes[name]
    images = _find_images(source)
    target = folder / source.name
    new_images = folder / images.name if images else None
    for path in (target, new_images):
        if path is not None and path.exists():
            raise RecipeError("is already there", where=str(path), hint="copy into another folder")
    with convert_disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        # Else the runs of all projects that began with this recipe would land in one MLflow experiment.
        project = json.dumps(_name_project(folder), ensure_ascii=False)
        text = source.read_text(encoding="utf-8").rstrip("\n")
        write_text(target, f"{text}\ntracking: {{experiment: {project}}}\n")
        if images and new_images:
            # Contents without permissions: an installed package may be read-only, while the copy is to be edited.
            shutil.copytree(images, new_images, copy_function=shutil.copyfile)
    return target, new_images


def _name_project(folder: Path) -> str:
    """Return what the runs of a folder are called together: the folder's name."""
    return folder.resolve().name or "images"


def _find_images(recipe: Path) -> Path | None:
    root = parse_document(recipe.read_text(encoding="utf-8"), name=recipe.name).root
    images = recipe.parent / str(root["data"]["source"])
    return images if images.is_dir() else None
