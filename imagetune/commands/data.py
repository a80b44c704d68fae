"""Images looked at before any training: the audit of a source and the contact sheet. Never imports Keras."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from PIL import Image

from imagetune.core.files import replace_atomically
from imagetune.data.audit.audit import Audit, audit_catalog, enforce_audit
from imagetune.data.audit.bit_depth import settle_bit_depth
from imagetune.data.audit.cleaning import Cleaning, build_cleaned_table, require_outside_source, write_cleaning
from imagetune.data.check_document import build_audit_document
from imagetune.data.loading.preview import load_preview, pick_records
from imagetune.data.sources.catalog import Catalog
from imagetune.data.sources.read import read_catalog
from imagetune.data.splits.obstacle import SplitPlan, find_split_obstacle
from imagetune.data.splits.splits import split_catalog
from imagetune.recipe.sections.data import DataConfig
from imagetune.reports.audit import write_audit_page
from imagetune.reports.contact_sheet import draw_contact_sheet
from imagetune.runs.checks.recipe import load_checked_recipe
from imagetune.runs.checks.tasks import check_classes

# Whatever else a source ends in is a folder or a table.
RECIPE_SUFFIXES = {".yaml", ".yml"}


@dataclass(frozen=True)
class SourceAudit:
    """The audit of a source of images: files, duplicates, labels and splits.

    Attributes:
        catalog: The images with their labels.
        audit: The findings.
        config: The data section of the recipe that the images were read by.
        plan: How a fit would split them.
    """

    catalog: Catalog
    audit: Audit
    config: DataConfig
    plan: SplitPlan

    def document(self) -> dict[str, object]:
        """Return the catalog's counts and the findings as JSON values."""
        return build_audit_document(self.catalog, self.audit)

    def enforce(self) -> None:
        """Raise DataError if a finding is an error, so that nothing can be trained on the images."""
        enforce_audit(self.audit)

    def write_page(self, path: Path) -> None:
        """Write the findings as an HTML page with thumbnails; raises DataError for a place among the images."""
        # A page among the images would be an unknown file to the next audit, and the user's data is never written to.
        require_outside_source(path, self.config)
        write_audit_page(self.catalog, self.audit, self.config, path)

    def fix(self, folder: Path) -> CleanedSource:
        """Write a cleaned source into a folder, audit it, and return both; no image is changed."""
        cleaning = build_cleaned_table(self.catalog, self.audit)
        cleaned, changes = write_cleaning(cleaning, folder, self.config)
        # Paths and labels are written out: what they were made from in the source is not in this table.
        columns = self.config.columns.model_copy(update={"one_hot": (), "path_format": "{}"})
        config = self.config.model_copy(update={"source": str(cleaned), "columns": columns})
        # Audited again: that the cleaned table has no errors is checked, not assumed.
        return CleanedSource(cleaned, changes, cleaning, _audit_source(config, self.plan))


@dataclass(frozen=True)
class CleanedSource:
    """A cleaned source: a table of the images that can be trusted.

    Attributes:
        cleaned: The table, a CSV file.
        changes: A CSV file of what was left out or moved, and why.
        cleaning: The same as values.
        check: The audit of the cleaned source.
    """

    cleaned: Path
    changes: Path
    cleaning: Cleaning
    check: SourceAudit

    def document(self) -> dict[str, object]:
        """Return both files and the number of changes of each kind as JSON values."""
        counts = Counter(change.change for change in self.cleaning.changes)
        return {
            "cleaned": str(self.cleaned),
            "changes": str(self.changes),
            "rows": len(self.cleaning.records),
            "changed": dict(sorted(counts.items())),
            "ok": self.check.document()["ok"],
        }


def check(source: Path, overrides: Sequence[str]) -> SourceAudit:
    """Return the audit of the images of a recipe, of a folder or of a table.

    Args:
        source: A recipe (.yaml, .yml), a folder of class folders, or a table.
        overrides: ``KEY=VALUE`` texts for a recipe.

    Raises:
        RecipeError: The recipe is wrong.
        DataError: There is no such source, or it has no images.
    """
    if source.suffix.lower() not in RECIPE_SUFFIXES:
        return _audit_source(DataConfig(source=str(source.absolute())), SplitPlan())
    loaded = load_checked_recipe(source, overrides)
    recipe = loaded.recipe
    plan = SplitPlan(recipe.split_seed, recipe.evaluate.folds, partial(check_classes, recipe))
    with loaded.placing_errors():
        return _audit_source(recipe.data, plan)


def preview(recipe: Path, overrides: Sequence[str], *, out: Path, images: int, copies: int) -> None:
    """Write a contact sheet (PNG) of training images, each beside its augmented copies.

    Args:
        recipe: The YAML file.
        overrides: ``KEY=VALUE`` texts.
        out: The PNG file; a place among the images is refused.
        images: Rows of the sheet.
        copies: Augmented copies of each image.

    Raises:
        RecipeError: The recipe is wrong.
        DataError: The images can't be read.
    """
    loaded = load_checked_recipe(recipe, overrides).recipe
    # Before the images are read, which takes longest; a sheet among them would be an image of the next training.
    require_outside_source(out, loaded.data)
    catalog = read_catalog(loaded.data)
    audit = audit_catalog(catalog, loaded.data)
    settings = settle_bit_depth(loaded.data, audit.statistics).image
    # Split as a fit would: the sheet shows training images alone, so that nobody looks at the test split.
    splits = split_catalog(catalog, audit, loaded.data, seed=loaded.split_seed)
    rows = load_preview(
        pick_records(splits.train, images),
        settings=settings,
        augmentation=loaded.data.augmentation,
        seed=loaded.seed,
        copies=copies,
        max_pixels=loaded.data.max_pixels,
    )
    sheet = draw_contact_sheet(rows, settings=settings, augmentation=loaded.data.augmentation)
    with replace_atomically(out) as temporary:
        Image.fromarray(sheet).save(temporary, format="PNG")


def _audit_source(config: DataConfig, plan: SplitPlan) -> SourceAudit:
    catalog = read_catalog(config)
    audit = audit_catalog(catalog, config)
    # After data.audit.allow: a finding that a fit can't go on with isn't one to be allowed.
    audit = replace(audit, findings=(*audit.findings, *find_split_obstacle(catalog, audit, config, plan)))
    return SourceAudit(catalog, audit, settle_bit_depth(config, audit.statistics), plan)
