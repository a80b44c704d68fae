"""Fine-tune image models from one recipe file."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("imagetune")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"
