"""A page as headless Chromium sees it: what it says on the console, whether its pictures are drawn, how wide it is."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here")

_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--no-first-run",
)
_CONSOLE = re.compile(r'CONSOLE[:(]\d+\)?\] "(.*)", source', re.DOTALL)
_POLICY = re.compile(r'<meta http-equiv="Content-Security-Policy"[^>]*>')
# Runs in a copy of the page whose policy forbids nothing; the page itself is loaded untouched for its console.
_PROBE = """
<script>
for (const image of document.images) image.loading = "eager";
addEventListener("load", () => {
  const images = [...document.images];
  const seen = {
    pictures: images.length,
    drawn: images.filter((image) => image.complete && image.naturalWidth > 0 && image.clientWidth > 0).length,
    page_width: document.documentElement.scrollWidth,
    window_width: document.documentElement.clientWidth,
  };
  document.documentElement.dataset.seen = JSON.stringify(seen);
});
</script>
"""


@dataclass(frozen=True)
class Seen:
    """What the browser saw.

    Attributes:
        console: Every message: errors, warnings, refused requests.
        pictures: How many ``img`` elements there are.
        drawn: How many of them show a picture.
        page_width: In pixels; more than ``window_width`` where the page has to be scrolled sideways.
        window_width: In pixels.
    """

    console: tuple[str, ...]
    pictures: int
    drawn: int
    page_width: int
    window_width: int


def browse(page: Path, *, width: int = 1200, height: int = 1600) -> Seen:
    """Open a page in a window of this size; `needs_browser` marks tests that call this."""
    with tempfile.TemporaryDirectory() as folder:
        console = _run(
            folder, width, height, "--dump-dom", "--enable-logging=stderr", "--v=0", page.absolute().as_uri()
        )
        probed = Path(folder) / "probed.html"
        probed.write_text(_POLICY.sub("", page.read_text(encoding="utf-8")) + _PROBE, encoding="utf-8")
        dom = _run(folder, width, height, "--virtual-time-budget=20000", "--dump-dom", probed.as_uri()).stdout
    found = re.search(r'data-seen="([^"]*)"', dom)
    assert found, dom[-2000:]
    seen = json.loads(found[1].replace("&quot;", '"'))
    return Seen(console=tuple(_CONSOLE.findall(console.stderr)), **seen)


def screenshot(page: Path, out: Path, *, width: int = 1200, height: int = 1600, dark: bool = False) -> Path:
    """Draw a page as a PNG."""
    mode = ("--blink-settings=preferredColorScheme=0",) if dark else ()
    with tempfile.TemporaryDirectory() as folder:
        _run(folder, width, height, *mode, f"--screenshot={out.absolute()}", page.absolute().as_uri())
    return out


def _run(folder: str, width: int, height: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    assert CHROMIUM
    command = [CHROMIUM, *_FLAGS, f"--user-data-dir={folder}/profile", f"--window-size={width},{height}", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
