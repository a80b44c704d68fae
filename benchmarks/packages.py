"""Files that Debian packages carry, fetched by the package's name and unpacked without installing it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path


class SetMissingError(Exception):
    """A set can't be had here; the message says what to do."""


def unpack_debian(package: str, target: Path) -> None:
    """Fetch a package from the index that apt is set up with, and unpack it into a folder.

    Raises:
        SetMissingError: It can't be had.
    """
    target.mkdir(parents=True, exist_ok=True)
    hint = f"the set needs the Debian package {package}: `apt-get update`, or install it, or leave it out with --sets"
    if shutil.which("apt-get") is None or shutil.which("dpkg") is None:
        raise SetMissingError(f"there is no apt-get here; {hint}")
    fetched = subprocess.run(["apt-get", "download", package], cwd=target, capture_output=True, text=True, check=False)
    files = sorted(target.glob(f"{package}_*.deb"))
    if fetched.returncode or not files:
        reason = "; ".join(fetched.stderr.strip().splitlines()[-1:]) or "nothing was fetched"
        raise SetMissingError(f"{reason}; {hint}")
    subprocess.run(["dpkg", "-x", files[-1], target], check=True)
    for file in files:
        file.unlink()


def find_package(package: str, work: Path) -> Path:
    """Return the folder that a package is unpacked in, fetching it where it isn't there yet.

    Raises:
        SetMissingError: It can't be had.
    """
    folder = work / "packages" / package
    done = folder / ".unpacked"
    if not done.exists():
        unpack_debian(package, folder)
        done.touch()
    return folder
