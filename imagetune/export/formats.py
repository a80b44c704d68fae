"""The formats and number types that a model can be exported to, and the packages that each of them needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal, TypeVar, get_args

from imagetune.core.quiet import hide_import_messages
from imagetune.core.text import format_list, shorten_middle
from imagetune.core.version import DISTRIBUTION
from imagetune.errors import RecipeError, ResourceError

Format = Literal["saved_model", "litert", "onnx"]
Quantization = Literal["none", "fp16", "dynamic", "int8"]
FORMATS: tuple[Format, ...] = get_args(Format)
QUANTIZATIONS: tuple[Quantization, ...] = get_args(Quantization)
MODEL_NAMES: dict[Format, str] = {"saved_model": "saved_model", "litert": "model.tflite", "onnx": "model.onnx"}
"""Name of the model's file or folder in an export, by format."""
Result = TypeVar("Result")
_PACKAGES = {"saved_model": (), "litert": ("ai_edge_litert",), "onnx": ("onnx", "tf2onnx", "onnxruntime")}


@dataclass(frozen=True)
class Target:
    """What a model is exported to.

    Attributes:
        format: The file format.
        quantization: How weights, and for ``int8`` activations, are stored: ``none`` keeps float32.
    """

    format: Format
    quantization: Quantization = "none"

    @property
    def name(self) -> str:
        """Format and number type in one word: ``litert-int8``."""
        return self.format if self.quantization == "none" else f"{self.format}-{self.quantization}"

    @property
    def model_name(self) -> str:
        """Name of the model's file or folder in the export."""
        return MODEL_NAMES[self.format]


def require_possible(target: Target) -> None:
    """Refuse a target that doesn't exist or whose packages are missing, before a model is loaded.

    Raises:
        RecipeError: The format has no such number type.
        ResourceError: A package is not installed.
    """
    if target.format == "saved_model" and target.quantization != "none":
        what = f"a SavedModel has no {target.quantization}: its numbers stay float32"
        raise RecipeError(what, where="--quantize", hint="leave it out, or choose --format litert or onnx")
    missing = [name for name in _PACKAGES[target.format] if find_spec(name) is None]
    if missing:
        what = f"needs {format_list(missing)}, which {'is' if len(missing) == 1 else 'are'} not installed"
        hint = f"pip install '{DISTRIBUTION}[{target.format}]'"
        raise ResourceError(what, where=f"--format {target.format}", hint=hint)


def convert_quietly(format: Format, convert: Callable[[], Result]) -> Result:
    """Return what a converter makes, without the notes that it writes to the descriptor of standard error.

    Raises:
        ResourceError: The converter has failed; whatever it raises.
    """
    failure: Exception | None = None
    with hide_import_messages():
        try:
            return convert()
        except Exception as error:  # noqa: BLE001 - a converter raises what its libraries do
            failure = error
    lines = str(failure).strip().splitlines() or [type(failure).__name__]
    what = f"the model can't be converted: {shorten_middle(lines[0])}"
    raise ResourceError(what, where=f"--format {format}", hint="see docs/export.md for what can be") from failure
