"""Looking at images before any training: the audit and the contact sheet. Never starts Keras."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from imagetune.core.files import atomic_path
from imagetune.data.audit.audit import Audit, audit_catalog, enforce_audit
from imagetune.data.audit.cleaning import Cleaning, clean, require_outside, write_cleaning
from imagetune.data.check_document import audit_document
from imagetune.data.loading.preview import load_preview, pick_records
from imagetune.data.sources.catalog import Catalog
from imagetune.data.sources.read import read_catalog
from imagetune.data.splits.splits import split_catalog
from imagetune.recipe.data import DataConfig
from imagetune.reports.audit import write_audit_page
from imagetune.reports.contact_sheet import draw_contact_sheet
from imagetune.runs.checks.recipe import load_checked_recipe

RECIPE_SUFFIXES = {".yaml", ".yml"}


@dataclass(frozen=True)
class Check:
    """What an audit found, with the section of the recipe that it was made by."""

    catalog: Catalog
    audit: Audit
    config: DataConfig

    def document(self) -> dict[str, object]:
        """Return it as JSON."""
        return audit_document(self.catalog, self.audit)

    def enforce(self) -> None:
        """Raise DataError if something stands in the way of training."""
        enforce_audit(self.audit)

    def write_page(self, path: Path) -> None:
        """Write it as a page with images; refuses a place among the images."""
        require_outside(path, self.config)
        write_audit_page(self.catalog, self.audit, self.config, path)

    def fix(self, folder: Path) -> Fixed:
        """Write a table of the images that can be trusted into a folder, and check it."""
        cleaning = clean(self.catalog, self.audit)
        cleaned, changes = write_cleaning(cleaning, folder, self.config)
        return Fixed(cleaned, changes, cleaning, _checked(self.config.model_copy(update={"source": str(cleaned)})))


@dataclass(frozen=True)
class Fixed:
    """A cleaned table, what was changed for it, and the check of it."""

    cleaned: Path
    changes: Path
    cleaning: Cleaning
    check: Check

    def document(self) -> dict[str, object]:
        """Return it as JSON."""
        counts = Counter(change.change for change in self.cleaning.changes)
        return {
            "cleaned": str(self.cleaned),
            "changes": str(self.changes),
            "rows": len(self.cleaning.records),
            "changed": dict(sorted(counts.items())),
            "ok": self.check.document()["ok"],
        }


def check(source: Path, overrides: Sequence[str]) -> Check:
    """Audit the images of a recipe, of a folder or of a table."""
    if source.suffix.lower() in RECIPE_SUFFIXES:
        config = load_checked_recipe(source, overrides).recipe.data
    else:
        config = DataConfig(source=str(source.absolute()))
    return _checked(config)


def preview(recipe: Path, overrides: Sequence[str], *, out: Path, images: int, copies: int) -> None:
    """Draw training images of a recipe beside their augmented copies; refuses to write among the images."""
    loaded = load_checked_recipe(recipe, overrides).recipe
    require_outside(out, loaded.data)
    catalog = read_catalog(loaded.data)
    splits = split_catalog(catalog, audit_catalog(catalog, loaded.data), loaded.data, seed=loaded.split_seed)
    rows = load_preview(
        pick_records(splits.train, images),
        settings=loaded.data.image,
        augmentation=loaded.data.augmentation,
        seed=loaded.seed,
        copies=copies,
        max_pixels=loaded.data.max_pixels,
    )
    sheet = draw_contact_sheet(rows, settings=loaded.data.image, augmentation=loaded.data.augmentation)
    with atomic_path(out) as temporary:
        Image.fromarray(sheet).save(temporary, format="PNG")


def _checked(config: DataConfig) -> Check:
    catalog = read_catalog(config)
    return Check(catalog, audit_catalog(catalog, config), config)
