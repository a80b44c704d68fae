"""Augmentation with any albumentations transform: validation of the recipe's list, and seeded application."""

from __future__ import annotations

import inspect
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from imagetune.core.plugins import AUGMENTATIONS, convert_plugin_errors, list_plugin_names, load_plugin
from imagetune.data.loading.augmentation_limits import find_excess, find_large_numbers
from imagetune.data.loading.augmentation_presets import PRESETS
from imagetune.errors import RecipeError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from pydantic import ValidationError

    from imagetune.recipe.sections.data import ImageSettings

    Image = npt.NDArray[np.uint8]

__all__ = [
    "PRESETS",
    "Augmenter",
    "Problem",
    "build_augmenter",
    "find_augmentation_problems",
    "resolve_augmentation",
]

Place = tuple[str | int, ...]

_COMPOSITIONS = ("OneOf", "RandomOrder", "SomeOf", "Sequential")
_NORMALIZATIONS = ("FromFloat", "Normalize", "ToFloat", "ToTensorV2", "ToTensor3D")
_REFUSED = {
    "Compose": "the list is a composition already, so put the transforms directly into it",
    "ReplayCompose": "the list is a composition already, so put the transforms directly into it",
    "OneOrOther": "use OneOf with two transforms",
    "SelectiveChannelTransform": "transforms apply to all three channels together",
    "Lambda": "a recipe can't contain code",
    **dict.fromkeys(
        _NORMALIZATIONS, "normalisation is done by the model's first layers, so images must stay uint8 RGB"
    ),
}
# Whether a chain fails may depend on its random parameters, so it is tried with several seeds.
_CHAIN_SEEDS = 8
# What albumentations and OpenCV raise for arguments that don't suit an image: there is no common base class.
_TRANSFORM_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)


@dataclass(frozen=True)
class Problem:
    """Problem in the augmentation of a recipe.

    Attributes:
        where: Path in the augmentation's value, such as ``(0, "OneOf", "transforms", 1, "Blur", "blur_limit")``.
        what: What is wrong, and what is expected or available.
    """

    where: Place
    what: str


class Augmenter:
    """Augmentation of images: equal seeds give equal pixels, in any thread or process.

    Args:
        spec: A preset's name, or transforms as in a recipe.
        image: Size of the output, and the background that fills uncovered areas.
    """

    def __init__(self, spec: str | Sequence[Mapping[str, Any]], image: ImageSettings) -> None:
        # Resolved here, so that worker processes receive transforms and need no plug-in.
        self._spec = resolve_augmentation(spec, (image.height, image.width))
        self._image = image
        # albumentations keeps the random state in its objects, which threads must not share.
        self._local = threading.local()

    # A threading.local can't be pickled, so each process builds transforms of its own.
    def __reduce__(self) -> tuple[Any, ...]:
        return (Augmenter, (self._spec, self._image))

    def __call__(self, image: Image, *, seed: tuple[int, int, int]) -> Image:
        """Return an augmented copy of an image.

        Args:
            image: ``(h, w, 3)`` uint8 RGB, usually already of the final size.
            seed: Seed of the run, epoch and index of the image, all non-negative.

        Returns:
            ``(image.height, image.width, 3)`` uint8 RGB.
        """
        import numpy as np

        from imagetune.data.loading.decode import resize_image

        if not self._spec:
            return resize_image(image, self._image)
        # Seeded before every image: global seeds don't reach albumentations, and the order of images must not matter.
        composition = self._build_composition()
        # albumentations takes one number. A hash of the three keeps (seed, epoch, index) apart that have the same sum.
        composition.set_random_seed(int(np.random.SeedSequence(seed).generate_state(1)[0]))
        # Crops and rotations may change the size.
        return resize_image(composition(image=image)["image"], self._image)

    def _build_composition(self) -> Any:
        if not hasattr(self._local, "composition"):
            transforms = [_build(entry, self._image.background) for entry in self._spec]
            self._local.composition = _import_albumentations().Compose(transforms)
        return self._local.composition


def build_augmenter(spec: str | Sequence[Mapping[str, Any]], image: ImageSettings) -> Augmenter:
    """Return an augmenter, which can be pickled, for a spec without problems (see `find_augmentation_problems`)."""
    return Augmenter(spec, image)


def resolve_augmentation(
    spec: str | Sequence[Mapping[str, Any]], size: tuple[int, int]
) -> tuple[Mapping[str, Any], ...]:
    """Return the list of transforms of an augmentation, with presets resolved.

    Args:
        spec: Name of a built-in preset or of a plug-in's, or transforms as in a recipe.
        size: Height and width in pixels of the images that will be augmented; a plug-in's preset may depend on it.

    Raises:
        RecipeError: A plug-in's preset can't be loaded, or is not a list.
    """
    if not isinstance(spec, str):
        return tuple(spec)
    return PRESETS[spec] if spec in PRESETS else _load_plugin_preset(spec, size)


def _load_plugin_preset(name: str, size: tuple[int, int]) -> tuple[Mapping[str, Any], ...]:
    preset = load_plugin(AUGMENTATIONS, name)
    with convert_plugin_errors(AUGMENTATIONS, name):
        transforms = preset(size)
        if not isinstance(transforms, (list, tuple)):
            raise TypeError(f"it returns {transforms!r}, expected a list of transforms")
    return tuple(transforms)


def find_augmentation_problems(
    spec: str | Sequence[Mapping[str, Any]], *, size: tuple[int, int] = (224, 224)
) -> tuple[Problem, ...]:
    """Return the problems of an augmentation, found by building each transform and applying it to an image.

    Args:
        spec: A preset's name, or transforms as in a recipe.
        size: Height and width in pixels of the images that will be augmented.

    Returns:
        All problems; empty for a valid augmentation.
    """
    from imagetune.recipe.problems import suggest_known_word

    if isinstance(spec, str):
        if spec in PRESETS:
            return ()
        if spec not in (plugins := list_plugin_names(AUGMENTATIONS)):
            return (Problem((), f"unknown preset {spec!r}; {suggest_known_word(spec, (*PRESETS, *plugins))}"),)
        return tuple(_find_plugin_problems(spec, size))
    if what := find_excess(spec):
        return (Problem((), what),)
    found = tuple(_find_list_problems(spec, (), size))
    return found or tuple(_find_chain_problems(spec, size))


def _find_plugin_problems(name: str, size: tuple[int, int]) -> Iterator[Problem]:
    """Yield the problems of a plug-in's preset; its transforms have no path in the recipe, so it goes into the text."""
    try:
        transforms = resolve_augmentation(name, size)
    except RecipeError as error:
        yield Problem((), str(error))
        return
    for problem in find_augmentation_problems(transforms, size=size):
        place = f"{'.'.join(map(str, problem.where))}: " if problem.where else ""
        yield Problem((), f"the plug-in's preset {name!r} is wrong: {place}{problem.what}")


def _find_chain_problems(spec: Sequence[Mapping[str, Any]], size: tuple[int, int]) -> Iterator[Problem]:
    """Yield a problem of the whole chain: valid transforms may fail together, such as a crop after a smaller one."""
    if not spec:
        return
    chain = _import_albumentations().Sequential([_build(entry, (255, 255, 255)) for entry in spec], p=1.0)
    for seed in range(_CHAIN_SEEDS):
        if trouble := _try(chain, size, seed):
            yield Problem((), f"the transforms can't be used together: {trouble}")
            return


def _find_list_problems(entries: Any, where: Place, size: tuple[int, int]) -> Iterator[Problem]:
    for index, entry in enumerate(entries):
        if not isinstance(entry, Mapping) or len(entry) != 1:
            what = f"{_shorten(entry)} is wrong: expected one transform, as `HorizontalFlip: {{p: 0.5}}`"
            yield Problem((*where, index), what)
            continue
        ((name, arguments),) = entry.items()
        place = (*where, index, str(name))
        if arguments is not None and not isinstance(arguments, Mapping):
            yield Problem(place, f"{_shorten(arguments)} is wrong: expected its arguments, as `{{p: 0.5}}`")
            continue
        yield from _find_entry_problems(str(name), dict(arguments or {}), place, size)


def _find_entry_problems(
    name: str, arguments: dict[str, Any], place: Place, size: tuple[int, int]
) -> Iterator[Problem]:
    from imagetune.recipe.problems import suggest_known_word

    if name in _REFUSED:
        yield Problem(place, f"{name} can't be used: {_REFUSED[name]}")
        return
    kind = _list_transforms().get(name)
    if kind is None:
        yield Problem(
            place, f"albumentations has no transform {name!r}; {suggest_known_word(name, _list_transforms())}"
        )
        return
    # `strict` is albumentations' own switch, which `_find_transform_problems` sets.
    known = [argument for argument in inspect.signature(kind.__init__).parameters if argument not in ("self", "strict")]
    unknown = [argument for argument in arguments if argument not in known]
    for argument in unknown:
        what = f"{name} has no argument {argument!r}; {suggest_known_word(str(argument), known)}"
        yield Problem((*place, str(argument)), what)
    if unknown:
        return
    too_large = {} if name in _COMPOSITIONS else find_large_numbers(arguments)
    for argument, limit in too_large.items():
        what = f"{_shorten(arguments[argument])} is wrong: expected numbers from -{limit:,} to {limit:,}"
        yield Problem((*place, argument), what)
    if too_large:
        return
    if name in _COMPOSITIONS:
        yield from _find_composition_problems(name, arguments, place, size)
    else:
        yield from _find_transform_problems(kind, arguments, place, size)


def _find_composition_problems(
    name: str, arguments: dict[str, Any], place: Place, size: tuple[int, int]
) -> Iterator[Problem]:
    inner = arguments.get("transforms")
    if not isinstance(inner, (list, tuple)) or not inner:
        yield Problem((*place, "transforms"), f"{name} needs `transforms`, a list of one transform or more")
        return
    found = tuple(_find_list_problems(inner, (*place, "transforms"), size))
    yield from found
    p, n = arguments.get("p", 0.5), arguments.get("n", 1)
    if isinstance(p, bool) or not isinstance(p, (int, float)) or not 0 <= p <= 1:
        yield Problem((*place, "p"), f"{_shorten(p)} is wrong: expected a number from 0 to 1")
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        yield Problem((*place, "n"), f"{_shorten(n)} is wrong: expected a whole number of at least 1")
    # albumentations divides each p by their sum.
    if not found and not any((next(iter(entry.values())) or {}).get("p", 0.5) for entry in inner):
        yield Problem((*place, "transforms"), "every transform has p: 0, so none can be chosen")


def _find_transform_problems(
    kind: Any, arguments: dict[str, Any], place: Place, size: tuple[int, int]
) -> Iterator[Problem]:
    from pydantic import ValidationError

    # pydantic, which albumentations checks arguments with, would take `true` for the number 1.
    p = arguments.get("p", 0.5)
    if isinstance(p, bool) or not isinstance(p, (int, float)) or not 0 <= p <= 1:
        yield Problem((*place, "p"), f"{_shorten(p)} is wrong: expected a number from 0 to 1")
        return
    try:
        # Only a class with a schema of its own knows `strict`, which turns its warnings into errors.
        transform = _make(kind, arguments, (255, 255, 255), **({"strict": True} if "InitSchema" in vars(kind) else {}))
    except _TRANSFORM_ERRORS as error:
        if isinstance(error.__cause__, ValidationError):
            yield from _find_schema_problems(error.__cause__, arguments, place)
        else:
            yield Problem(place, f"{place[-1]} can't be built: {_simplify(str(error))}")
        return
    trouble = _try(transform, size)
    if trouble:
        yield Problem(place, f"{place[-1]} can't be used: {trouble}")


def _find_schema_problems(error: ValidationError, arguments: dict[str, Any], place: Place) -> Iterator[Problem]:
    """Yield one problem for each argument; failed branches of a union are joined by "or"."""
    wrong: dict[str, list[str]] = {}
    for finding in error.errors(include_url=False):
        argument = str(finding["loc"][0]) if finding["loc"] else ""
        words = "is missing and has no default" if finding["type"] == "missing" else _simplify(finding["msg"])
        wrong.setdefault(argument, []).append(words)
    for argument, reasons in wrong.items():
        what = " or ".join(dict.fromkeys(reasons))
        if argument in arguments:
            yield Problem((*place, argument), f"{_shorten(arguments[argument])} is wrong: {what}")
        else:
            yield Problem(place, f"{argument} {what}".strip())


def _try(transform: Any, size: tuple[int, int], seed: int = 0) -> str:
    """Return why a transform fails on a noise image or changes its type, or "" when it works."""
    import cv2
    import numpy as np
    from albumentations.augmentations.crops.transforms import CropSizeError

    image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    transform.set_random_seed(seed)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # Left to its own p, a transform may be skipped, and its failure stays hidden.
            result = transform(image=image, force_apply=True)["image"]
    except (*_TRANSFORM_ERRORS, CropSizeError, cv2.error) as error:
        return f"on an image of {size[0]} x {size[1]} it fails with: {_simplify(str(error))}"
    if not isinstance(result, np.ndarray) or result.dtype != np.uint8 or result.ndim != 3 or result.shape[2] != 3:
        kind = f"{result.dtype} {result.shape}" if isinstance(result, np.ndarray) else type(result).__name__
        return f"it returns {kind}, but images must stay uint8 RGB: normalisation is done by the model's first layers"
    return ""


def _build(entry: Mapping[str, Any], background: tuple[int, int, int]) -> Any:
    ((name, arguments),) = entry.items()
    arguments = dict(arguments or {})
    if name in _COMPOSITIONS:
        arguments["transforms"] = [_build(inner, background) for inner in arguments["transforms"]]
        return _list_transforms()[name](**arguments)
    kind = _list_transforms()[name]
    if name == "Affine":
        from imagetune.data.loading.warping import QuickAffine

        kind = QuickAffine
    return _make(kind, arguments, background)


def _make(kind: Any, arguments: dict[str, Any], background: tuple[int, int, int], **more: Any) -> Any:
    """Build a transform; geometric ones fill uncovered areas with the background by default."""
    known = inspect.signature(kind.__init__).parameters
    if "border_mode" in known and "fill" in known and "fill" not in arguments:
        arguments = {**arguments, "fill": background}
    with warnings.catch_warnings():
        # ShiftScaleRotate and a few others only warn that they are deprecated; unknown arguments were refused before.
        warnings.simplefilter("ignore", UserWarning)
        return kind(**{key: _resolve_constant(value) for key, value in arguments.items()}, **more)


def _resolve_constant(value: Any) -> Any:
    """Return OpenCV's number for a name such as ``INTER_CUBIC`` or ``BORDER_REFLECT``, other values unchanged."""
    import cv2

    if isinstance(value, str) and value.startswith(("INTER_", "BORDER_")):
        return getattr(cv2, value, value)
    return value


def _list_transforms() -> dict[str, Any]:
    """Return every usable transform and composition of albumentations by name."""
    library = _import_albumentations()
    bases = (library.BasicTransform, library.BaseCompose)
    found = {}
    for name in dir(library):
        kind = getattr(library, name)
        if inspect.isclass(kind) and issubclass(kind, bases) and not inspect.isabstract(kind):
            found[name] = kind
    abstract = ("BaseCompose", "BasicTransform", "DualTransform", "ImageOnlyTransform", "Transform3D")
    return {name: kind for name, kind in found.items() if name not in (*abstract, *_REFUSED)}


def _import_albumentations() -> Any:
    # Half a second, which only those who augment have to wait for.
    import albumentations

    return albumentations


def _shorten(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _simplify(message: str) -> str:
    """Return a library's error message as a clause on one line."""
    text = " ".join(message.split()).removeprefix("Value error, ").removeprefix("Assertion failed, ")[:300]
    first = text.split(" ")[0]
    return text[:1].lower() + text[1:] if first[1:].islower() else text
