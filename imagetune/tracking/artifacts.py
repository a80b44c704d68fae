"""Artifacts of MLflow: files sent to and fetched from the place that a store names, where that is a place for them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from imagetune.core.secrets import redact_uri
from imagetune.errors import TrackingError
from imagetune.tracking.address import is_http
from imagetune.tracking.bounded_http import DOWNLOAD_BYTES, limit_download

# What MLflow itself calls its folders of artifacts. A server's word alone must not decide what is written where.
_OWN_FOLDERS = ("mlruns", "mlartifacts")
_MAX_FILES = 2000
_MAX_DEPTH = 12


def open_artifacts(uri: str, location: str) -> Any:
    """Return MLflow's repository of the artifacts at a location.

    Args:
        uri: Complete address of the store.
        location: The location, as the store gives it for a run or a logged model.

    Raises:
        TrackingError: A server names a folder of this machine that isn't one of MLflow's.
    """
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    if is_http(uri) and not is_foreign(location):
        folder = Path(url2pathname(urlsplit(location).path))
        if ".." in folder.parts or not any(part.name in _OWN_FOLDERS and part.is_dir() for part in folder.parents):
            hint = (
                "start the server with --serve-artifacts, or its artifacts in a folder called mlruns that exists here"
            )
            what = f"the server keeps artifacts in a folder of this machine: {str(folder)!r}"
            raise TrackingError(what, where=redact_uri(uri), hint=hint)
    return get_artifact_repository(location, tracking_uri=uri)


def is_foreign(location: str) -> bool:
    """Return whether a location is elsewhere than in the file system of this machine."""
    return urlsplit(location).scheme not in ("", "file")


def fetch_artifacts(repository: Any, folder: Path) -> None:
    """Download all artifacts of a repository into a folder, one after the other.

    Args:
        repository: Result of `open_artifacts`.
        folder: An existing folder.

    Raises:
        TrackingError: The store lists more files than a run has, or names that lead out of the folder.
    """
    # Not MLflow's download of a folder: it uses a pool of threads, whose requests would have no bounds.
    for place, size in _walk(repository, None, [0]):
        target = folder / place
        target.parent.mkdir(parents=True, exist_ok=True)
        # Half of the free disk stays for what is being done with the files.
        room = shutil.disk_usage(folder).free // 2
        with limit_download(min(DOWNLOAD_BYTES if size is None else size, room)):
            repository._download_file(str(place), str(target))


def _walk(repository: Any, path: str | None, seen: list[int]) -> Iterator[tuple[PurePosixPath, int | None]]:
    """Yield path and size of every file below a path, as far as the store says it."""
    for item in repository.list_artifacts(path):
        seen[0] += 1
        place = PurePosixPath(item.path)
        unsafe = place.is_absolute() or ".." in place.parts or not place.is_relative_to(path or "")
        if unsafe or seen[0] > _MAX_FILES or len(place.parts) > _MAX_DEPTH:
            what = f"the store lists {item.path[:200]!r}" if unsafe else "the store lists files without end"
            raise TrackingError(what, where=redact_uri(str(repository.artifact_uri)), hint="check the server")
        if item.is_dir:
            yield from _walk(repository, item.path, seen)
        else:
            yield place, item.file_size
