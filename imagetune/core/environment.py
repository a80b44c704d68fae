"""What libraries inherit from the user's shell, notebook and home, settled before they are imported.

A notebook's kernel passes its own variables on to every command that is started with ``!``, and ``keras.json`` stays in
a home folder for years: neither was ever meant for a training.
"""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from imagetune.core.files import read_json_or_empty
from imagetune.errors import RecipeError

BACKENDS = ("tensorflow", "jax")
"""The Keras backends that imagetune runs on."""
_BACKEND = "KERAS_BACKEND"
# Keras stops at its import where keras.json has another value.
_ALLOWED = {"floatx": ("float16", "float32", "float64"), "image_data_format": ("channels_last", "channels_first")}


def settle_process_environment() -> None:
    """Set the variables of libraries that this process and its children must not inherit from a shell or a notebook.

    It is for processes of our own; a program that calls the Python API keeps its variables.
    """
    # A notebook names a backend that may not be installed here, and that shows plots instead of writing them.
    os.environ["MPLBACKEND"] = "agg"
    # Debugging aids of Keras: both would end every training early without a word.
    for name in ("KERAS_MAX_EPOCHS", "KERAS_MAX_STEPS_PER_EPOCH"):
        os.environ.pop(name, None)
    # Otherwise children look for modules in the working folder first, where a checkout of ours may lie: a folder of the
    # same name, which they would take for the package.
    os.environ["PYTHONSAFEPATH"] = "1"
    # Another kind of layers, which needs flax; keras.json may ask for it as well.
    os.environ["KERAS_NNX_ENABLED"] = "false"


def settle_backend() -> None:
    """Choose the Keras backend before Keras is imported: $KERAS_BACKEND, else that of keras.json where it serves.

    A file that names a backend which imagetune doesn't run on, such as one from Keras 2, means TensorFlow.

    Raises:
        RecipeError: $KERAS_BACKEND, or Keras as the program has imported it, is another backend or one that isn't
            installed; or Keras can't be imported with its keras.json.
    """
    # Half imported is what a failed import leaves.
    if hasattr(sys.modules.get("keras"), "config"):
        _require_backend(sys.modules["keras"].config.backend(), "Keras, as this program has imported it,")
        return
    if named := os.environ.get(_BACKEND):
        _require_backend(named, f"${_BACKEND}")
    file = locate_keras_config()
    settings = read_json_or_empty(file)
    _require_importable(settings, file)
    if not named and not _is_usable(settings.get("backend", BACKENDS[0])):
        os.environ[_BACKEND] = BACKENDS[0]


def locate_keras_config() -> Path:
    """Return the path of Keras's settings file, ``~/.keras/keras.json`` or the one in ``$KERAS_HOME``."""
    return Path(os.environ.get("KERAS_HOME") or "~/.keras").expanduser() / "keras.json"


def _require_backend(name: str, where: str) -> None:
    if _is_usable(name):
        return
    what = f"the backend {name!r} is not installed" if name in BACKENDS else f"imagetune has no backend {name!r}"
    usable = " or ".join(backend for backend in BACKENDS if _is_usable(backend))
    raise RecipeError(f"{what}: it runs on {usable or 'tensorflow'} here", where=where, hint=f"unset {_BACKEND}")


def _is_usable(name: Any) -> bool:
    return name in BACKENDS and find_spec(name) is not None


def _require_importable(settings: dict[str, Any], file: Path) -> None:
    for key, allowed in _ALLOWED.items():
        if (value := settings.get(key, allowed[0])) not in allowed:
            what = f"Keras can't start with {key}: {value!r}: expected {' or '.join(allowed)}"
            raise RecipeError(what, where=str(file), hint="correct or delete this file; Keras writes a new one")
    if not isinstance(settings.get("epsilon", 1e-7), float):
        what = f"Keras can't start with epsilon: {settings['epsilon']!r}: expected a number such as 1e-07"
        raise RecipeError(what, where=str(file), hint="correct or delete this file; Keras writes a new one")
