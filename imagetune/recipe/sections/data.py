"""The ``data`` section: where images come from, how they are split, sized and augmented."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Literal, Self

from pydantic import Field, JsonValue, model_validator

from imagetune.core.plugins import AUGMENTATIONS
from imagetune.core.text import format_list
from imagetune.recipe.plugin_names import NameOf
from imagetune.recipe.sections.base import Fraction, Positive, Section, Sequence
from imagetune.recipe.tasks import Task

Resize = Literal["pad", "crop", "squash"]
AugmentationPreset = Annotated[str, NameOf(AUGMENTATIONS, ("none", "light", "medium", "strong", "randaugment"))]
Channel = Annotated[int, Field(ge=0, le=255)]
Pixels = Annotated[int, Field(ge=8, le=4096)]
# So many pixels take 1.2 GB; what an untrusted model states must not switch the limit off.
MaxPixels = Annotated[int, Field(ge=1, le=400_000_000)]
# Not strict, which would refuse a list for a tuple, and YAML has only lists.
ImageSize = Pixels | Annotated[tuple[Pixels, Pixels], Field(strict=False)]
BitDepth = Annotated[int, Field(ge=8, le=32)]
Background = Annotated[tuple[Channel, Channel, Channel], Field(strict=False)]
Augmentation = AugmentationPreset | Sequence[dict[str, dict[str, JsonValue] | None]]


class SplitConfig(Section):
    """How images are split into training, validation and test, where the source doesn't say so itself."""

    val: Fraction = 0.15
    """Share of the images kept for validation, 0 to 1: they select the model, and no weight is fitted to them."""
    test: Fraction = 0.2
    """Share of the images held out for the final test, 0 to 1."""
    method: Literal["hash", "stratified"] = "hash"
    """How images are split. `hash`: each image's content (or group) alone decides its split, so that it stays there
    when others are added; class shares hold on average. `stratified`: class shares are exact, and adding images may
    move a few."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    """Seed of the split; by default the recipe's. With one of its own, the recipe's seed changes only the training."""

    @model_validator(mode="after")
    def _leave_something_to_train_on(self) -> Self:
        if self.val + self.test >= 1.0:
            raise ValueError(f"val + test is {self.val + self.test:g}, which leaves no images to train on")
        return self


class ColumnsConfig(Section):
    """Column names of a CSV or Parquet source."""

    path: str = "path"
    """Column with the path of the image, relative to the table's folder."""
    label: str = "label"
    """Column with the label, always read as text."""
    split: str = "split"
    """Optional column with the split of the image: train, val or test."""
    group: str = "group"
    """Optional column with the group of the image, such as a patient, a film or a shop; a group is never split."""
    slices: Sequence[str] = ()
    """Columns whose values define slices of the test, such as a camera, a site or a time of day."""
    one_hot: Sequence[str] = ()
    """Columns of 0 and 1, one a class, instead of a column with the label; their names are the classes."""
    path_format: Annotated[str, Field(pattern=r"\{\}")] = "{}"
    """Path of an image with `{}` for the cell of the column `path`, such as `train/{}.jpg` where the cells are bare
    ids."""


class AuditConfig(Section):
    """What the audit of the images before training does about its findings."""

    on_leak: Literal["error", "warn", "ignore"] = "error"
    """What to do about leakage: the same or nearly the same image in two splits that the source gave."""
    on_conflict: Literal["error", "warn", "ignore"] = "warn"
    """What to do about the same image under two labels."""
    fail_on: Annotated[Sequence[str], Field(max_length=200)] = ()
    """Codes of findings that stop the run with exit code 3, beside those that on_leak and on_conflict make errors.
    `imagetune data check --codes` lists the codes."""
    allow: Annotated[Sequence[str], Field(max_length=200)] = ()
    """Codes of findings that are neither reported nor stop the run, because someone has reviewed them."""
    near_duplicates: bool = True
    """Whether near-duplicate images are looked for, and each group of them kept in one split."""


class ImageSettings(Section):
    """How an image file becomes an array; kept in the model's manifest, so that every command does the same."""

    height: Pixels
    """Height of the array in pixels."""
    width: Pixels
    """Width of the array in pixels."""
    resize: Resize = "pad"
    """How images of another aspect ratio are fitted: padded, cropped or stretched."""
    background: Background = (255, 255, 255)
    """RGB colour, 0 to 255 each, under transparency and around padded images."""
    bit_depth: BitDepth = 16
    """Bits of an image with more than 8 bits a channel that its values use; the upper 8 of them are read."""


class DataConfig(Section):
    """Where images and labels come from, and how images are split, resized, augmented and cached."""

    source: str
    """The images and labels, relative to the recipe's folder: a folder of class folders, a folder already split into
    train/val/test, a folder of images with a NAME.json beside each ({"label": ...}, {"labels": [...]} or
    {"value": ...}), or a .csv or .parquet table with the columns path,label[,split,group]."""
    task: Task = "single_label"
    """What a label is: one class of several (`single_label`), any number of classes (`multi_label`), one of several
    ordered classes (`ordinal`, in the order of `classes`), or a number (`regression`)."""
    label_separator: Annotated[str, Field(min_length=1)] = ";"
    """Text between the labels of an image in a table, for multi_label."""
    image_size: ImageSize = 224
    """Height and width in pixels, 8 to 4096: one number for both, or [height, width]."""
    resize: Resize = "pad"
    """How images of another aspect ratio are fitted: `pad` keeps the whole image and its shape, `crop` fills the frame
    and cuts the longer side, `squash` stretches."""
    background: Background = (255, 255, 255)
    """RGB colour, 0 to 255 each, under transparency and around padded images; white by default."""
    bit_depth: BitDepth | Literal["auto"] = "auto"
    """Bits that the values of images with more than 8 bits a channel use, 8 to 32, such as 12 of 16 in many medical
    images. `auto` takes what the brightest pixel of all images needs. The upper 8 of them are read."""
    split: SplitConfig = SplitConfig()
    """How images are split, where the source doesn't say so itself."""
    columns: ColumnsConfig = ColumnsConfig()
    """Column names of a .csv or .parquet source."""
    classes: Sequence[str] | None = None
    """Class names to use, in this order; images of other classes are left out. By default all classes of the training
    split are used."""
    # `medium` lost 2.2 points on small image sets and `strong` 6.9; `none` was as good (docs/strategies.md).
    augmentation: Augmentation = "light"
    """Random augmentation of training images: a preset, a plug-in's name, or a list of albumentations transforms such
    as `- HorizontalFlip: {p: 0.5}`."""
    audit: AuditConfig = AuditConfig()
    """The audit of the images before training."""
    on_bad_image: Literal["skip", "error"] = "skip"
    """What to do about an image that can't be decoded: `skip` leaves it out and counts it, `error` stops the run."""
    # A PNG of 109 KB can hold 900 million pixels, which took 22 s and 5.7 GB to decode.
    max_pixels: MaxPixels = 100_000_000
    """Largest number of pixels of an image, at most 400 million; larger ones are refused by their header, before they
    are decoded. So are images whose decoding would take more than five bytes of memory, or 50 nanoseconds, for each
    pixel that is allowed: 500 MB and 5 s by default, which is 38 million pixels of 16 bits and three channels."""
    workers: Annotated[int, Field(ge=0, le=256)] | Literal["auto"] = "auto"
    """Number of processes that decode and augment images; 0 uses threads of the main process, and `auto` measures which
    is faster."""
    cache: Literal["auto", "ram", "disk", "off"] = "auto"
    """Where decoded and resized images are kept for later epochs: in memory (`ram`), on `disk` for later runs too, or
    nowhere (`off`). `auto` decides by the free space and the number of epochs."""
    cache_gib: Positive = 20.0
    """Largest disk space in GiB for the decoded images and features of all runs; what was unused for longest makes
    room. The folder is the user's cache folder, or $IMAGETUNE_CACHE."""

    @property
    def cache_bytes(self) -> int:
        """Largest disk space in bytes for decoded images and features."""
        return int(self.cache_gib * 2**30)

    @property
    def image(self) -> ImageSettings:
        """Image settings that the keys of this section amount to: how each image becomes an array."""
        height, width = (self.image_size,) * 2 if isinstance(self.image_size, int) else self.image_size
        depth = ImageSettings.model_fields["bit_depth"].default if self.bit_depth == "auto" else self.bit_depth
        return ImageSettings(
            height=height, width=width, resize=self.resize, background=self.background, bit_depth=depth
        )

    @model_validator(mode="after")
    def _one_hot_classes(self) -> Self:
        if self.task == "regression" and self.columns.one_hot:
            raise ValueError("columns.one_hot names classes, and task is regression")
        return self

    @model_validator(mode="after")
    def _distinct_classes(self) -> Self:
        if twice := sorted(name for name, count in Counter(self.classes).items() if count > 1):
            raise ValueError(f"classes names more than once: {format_list(map(repr, twice))}")
        return self
