"""The ``data`` section: where images come from, how they are split, sized and augmented."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, JsonValue, model_validator

from imagetune.core.plugins import AUGMENTATIONS
from imagetune.recipe.base import Fraction, NonNegativeInt, Positive, PositiveInt, Section, Sequence
from imagetune.recipe.plugin_names import NameOf

Resize = Literal["pad", "crop", "squash"]
AugmentationPreset = Annotated[str, NameOf(AUGMENTATIONS, ("none", "light", "medium", "strong", "randaugment"))]
Channel = Annotated[int, Field(ge=0, le=255)]
Pixels = Annotated[int, Field(ge=8, le=4096)]
ImageSize = Pixels | Annotated[tuple[Pixels, Pixels], Field(strict=False)]
Background = Annotated[tuple[Channel, Channel, Channel], Field(strict=False)]
Augmentation = AugmentationPreset | Sequence[dict[str, dict[str, JsonValue] | None]]
Task = Literal["single_label", "multi_label", "ordinal", "regression"]


class SplitConfig(Section):
    """Shares of the images kept for validation and test, when the source doesn't say itself."""

    val: Fraction = 0.15
    """Share of the images kept for validation: model selection sees them, the weights never do."""
    test: Fraction = 0.2
    """Share of the images held out for the one final test."""
    method: Literal["hash", "stratified"] = "hash"
    """`hash`: each image's content (or group) alone decides its split, so it stays there when others are added;
    class shares hold on average. `stratified`: class shares are exact, and adding images may move a few."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    """Seed of the split, by default the recipe's: with one of its own, the recipe's seed changes only the training."""

    @model_validator(mode="after")
    def _leave_something_to_train_on(self) -> Self:
        if self.val + self.test >= 1.0:
            raise ValueError(f"val + test is {self.val + self.test:g}, which leaves no images to train on")
        return self


class ColumnsConfig(Section):
    """Names of the columns of a CSV or Parquet source."""

    path: str = "path"
    """Column with the image's path, relative to the table's folder."""
    label: str = "label"
    """Column with the class name; always read as text."""
    split: str = "split"
    """Optional column with train, val or test."""
    group: str = "group"
    """Optional column with what must stay on one side of the split: a patient, a film, a shop."""
    slices: Sequence[str] = ()
    """Other columns by whose values the test is looked at: a camera, a site, a time of day."""


class AuditConfig(Section):
    """What the check of the images before training does about its findings."""

    on_leak: Literal["error", "warn", "ignore"] = "error"
    """The same or nearly the same image in two splits that the source gave."""
    on_conflict: Literal["error", "warn", "ignore"] = "warn"
    """The same image under two labels."""
    fail_on: Sequence[str] = ()
    """Codes of findings that stop the run (exit 3), beside those that on_leak and on_conflict make errors; the codes
    are listed by `imagetune data check --codes`."""
    allow: Sequence[str] = ()
    """Codes of findings that are neither told nor stop anything, because someone has looked at them."""
    near_duplicates: bool = True
    """Also look for nearly identical images, and keep each family on one side of a split made here."""


class ImageSettings(Section):
    """How an image file becomes an array; kept in the model's manifest so that every command does the same."""

    height: Pixels
    """Rows of the array."""
    width: Pixels
    """Columns of the array."""
    resize: Resize = "pad"
    """How the aspect ratio is treated."""
    background: Background = (255, 255, 255)
    """RGB colour under transparency and around padded images."""


class DataConfig(Section):
    """Images, labels and splits."""

    source: str
    """A folder of class folders, a folder already split into train/val/test, a folder of images with a NAME.json
    beside each ({"label": ...}, {"labels": [...]} or {"value": ...}), or a .csv or .parquet table with
    path,label[,split,group]. Relative to the recipe's folder."""
    task: Task = "single_label"
    """What a label is: one class of several; any number of classes (`multi_label`: several in a cell, split at
    label_separator); one of ordered classes (`ordinal`, whose order `classes` gives); a number (`regression`)."""
    label_separator: Annotated[str, Field(min_length=1)] = ";"
    """What stands between the labels of an image in a table, for multi_label."""
    image_size: ImageSize = 224
    """Height and width in pixels: one number, or [height, width]."""
    resize: Resize = "pad"
    """`pad` keeps the whole image and its shape; `crop` fills the frame and cuts the longer side; `squash`
    stretches."""
    background: Background = (255, 255, 255)
    """RGB colour under transparency and around padded images."""
    split: SplitConfig = SplitConfig()
    """Shares kept for validation and test, when the source doesn't say itself."""
    columns: ColumnsConfig = ColumnsConfig()
    """Column names of a table."""
    classes: Sequence[str] | None = None
    """The class names to use, in this order; others are left out. By default all that the training split has."""
    augmentation: Augmentation = "light"
    """A preset of ours or of a plug-in, or a list of albumentations transforms: `- HorizontalFlip: {p: 0.5}`."""
    audit: AuditConfig = AuditConfig()
    """The check of the images before training."""
    on_bad_image: Literal["skip", "error"] = "skip"
    """An image that can't be decoded: leave it out and count it, or stop."""
    max_pixels: PositiveInt = 100_000_000
    """Images with more pixels than this are refused from their header, unread."""
    workers: NonNegativeInt | Literal["auto"] = "auto"
    """Processes that decode and augment; 0 does it in the main process."""
    cache: Literal["auto", "ram", "disk", "off"] = "auto"
    """Where images are kept, decoded and resized, so that later epochs need not decode them: in memory, on `disk` for
    later runs too, or nowhere. `auto` decides by room and number of epochs."""
    cache_gib: Positive = 20.0
    """Most disk space in GiB that decoded images and features of all runs may take; what was not used for longest
    makes room. They lie in the user's cache folder, or in $IMAGETUNE_CACHE."""

    @property
    def cache_bytes(self) -> int:
        """Most bytes that decoded images and features may take."""
        return int(self.cache_gib * 2**30)

    @property
    def image(self) -> ImageSettings:
        """How each image becomes an array."""
        height, width = (self.image_size,) * 2 if isinstance(self.image_size, int) else self.image_size
        return ImageSettings(height=height, width=width, resize=self.resize, background=self.background)

    @model_validator(mode="after")
    def _distinct_classes(self) -> Self:
        if self.classes is not None and len(set(self.classes)) != len(self.classes):
            twice = sorted({name for name in self.classes if self.classes.count(name) > 1})
            raise ValueError(f"classes names {twice} more than once")
        return self
