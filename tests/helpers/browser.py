"""A page as headless Chromium sees it, and what it does when keys are pressed."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from devtools import Window, open_window

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

# Where browser tests must not be skipped, as in .ci/run, they run and fail for want of a browser.
REQUIRED = os.environ.get("IMAGETUNE_REQUIRE_BROWSER", "") not in ("", "0")

needs_browser = pytest.mark.skipif(CHROMIUM is None and not REQUIRED, reason="there is no Chromium here")

_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    # What a browser does by itself at its start: nothing of it belongs to a page's console.
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--no-first-run",
)
_CONSOLE = re.compile(r'CONSOLE[:(]\d+\)?\] "(.*)", source', re.DOTALL)
_POLICY = re.compile(r'<meta http-equiv="Content-Security-Policy"[^>]*>')
# Runs in a copy of the page whose policy forbids nothing; the page itself is loaded untouched for its console.
_PROBE = """
<script>
for (const image of document.images) image.loading = "eager";
for (const folded of document.querySelectorAll("details")) folded.open = true;
addEventListener("load", () => {
  const images = [...document.images];
  const seen = {
    images: images.length,
    drawn: images.filter((image) => image.complete && image.naturalWidth > 0 && image.clientWidth > 0).length,
    page_width: document.documentElement.scrollWidth,
    window_width: document.documentElement.clientWidth,
  };
  document.documentElement.dataset.seen = JSON.stringify(seen);
});
</script>
"""

# Where the focus is: the place among all elements, -1 where it is nowhere, and what of a sortable table is there.
_FOCUS = """
(() => {
  const at = document.activeElement;
  const place = at === document.body ? -1 : [...document.querySelectorAll("*")].indexOf(at);
  const closed = at.matches("details:not([open]) > summary");
  const heading = at.matches("table.sortable th button") ? at.closest("th") : null;
  if (!heading) return {place, closed};
  const style = getComputedStyle(at), box = at.getBoundingClientRect();
  const frame = (at.closest(".scroll") ?? document.documentElement).getBoundingClientRect();
  const column = [...heading.parentNode.children].indexOf(heading);
  const rows = [...heading.closest("table").tBodies[0].rows];
  return {
    place, closed,
    heading: at.textContent.trim(),
    order: heading.getAttribute("aria-sort"),
    marked: heading.parentNode.querySelectorAll("[aria-sort]").length,
    values: rows.map((row) => row.children[column].dataset.value),
    rows: rows.map((row) => row.textContent.trim().replace(/\\s+/g, " ")),
    outlined: at.matches(":focus-visible") && style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 1,
    seen: box.width > 0 && box.top >= 0 && box.bottom <= innerHeight
      && box.left >= Math.max(0, frame.left) && box.right <= Math.min(innerWidth, frame.right),
  };
})()
"""
_BUTTONS = 'document.querySelectorAll("table.sortable th button").length'


@dataclass(frozen=True)
class Sorted:
    """A column that was reached by the tabulator key alone, then sorted by Enter and by the space bar.

    Attributes:
        heading: The words on its button.
        outlined: Whether the focused button has an outline.
        seen: Whether all of it is inside the window.
        orders: ``aria-sort`` after Enter, and after the space bar.
        marked: How many columns of the table say that they are sorted, each time.
        values: What the column's cells are sorted by, from the first row to the last, each time.
        rows: The words of the rows, each time.
    """

    heading: str
    outlined: bool
    seen: bool
    orders: tuple[str | None, ...]
    marked: tuple[int, ...]
    values: tuple[tuple[str, ...], ...]
    rows: tuple[tuple[str, ...], ...]

    def check(self) -> None:
        """Assert what every column of every page has to keep."""
        assert self.outlined, f"{self.heading}: where the focus is can't be seen"
        assert self.seen, f"{self.heading}: the focused button is outside the window"
        assert set(self.orders) == {"ascending", "descending"}, (self.heading, self.orders)
        assert self.marked == (1, 1), f"{self.heading}: {self.marked} columns say that they are sorted"
        assert sorted(self.rows[0]) == sorted(self.rows[1])
        for order, values in zip(self.orders, self.values, strict=True):
            told = [value for value in values if value]
            assert list(values[len(told) :]) == [""] * (len(values) - len(told)), f"{self.heading}: gaps aren't last"
            if numbers := _numbers(told):
                assert numbers == sorted(numbers, reverse=order == "descending"), (self.heading, order, numbers)
            elif told:
                first, last = (told[-1], told[0]) if order == "descending" else (told[0], told[-1])
                assert first.casefold() <= last.casefold(), (self.heading, order, told)


@dataclass(frozen=True)
class Seen:
    """What the browser saw.

    Attributes:
        console: Every message: errors, warnings, refused requests.
        images: How many ``img`` elements there are.
        drawn: How many of them show an image.
        page_width: In pixels; more than ``window_width`` where the page has to be scrolled sideways.
        window_width: In pixels.
    """

    console: tuple[str, ...]
    images: int
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


@contextmanager
def window(page: Path | str, *, width: int = 1200, height: int = 1600) -> Iterator[Window]:
    """Open a page whose keys can be pressed, at any width; `needs_browser` marks tests that call this."""
    with open_window((_chromium(), *_FLAGS), page, width=width, height=height) as opened:
        yield opened


def sort_by_keyboard(page: Path, *, width: int = 1200, height: int = 1600) -> tuple[Sorted, ...]:
    """Go through a page by the tabulator key, open what is folded, and sort every column by Enter and the space bar.

    Returns:
        Every column of every ``table.sortable``, in the order of the page.

    Raises:
        AssertionError: A heading's button was not reached, or the console has something to say.
    """
    found = []
    with window(page, width=width, height=height) as opened:
        last = -1
        while True:
            opened.press("Tab")
            focus = opened.ask(_FOCUS)
            # Past the last element the focus leaves the page, or begins anew at its top.
            if focus["place"] <= last:
                break
            last = focus["place"]
            if focus["closed"]:
                opened.press("Enter")
            if "heading" in focus:
                found.append(_sort_here(opened, focus))
        assert len(found) == opened.ask(_BUTTONS)
        assert not opened.console, opened.console
    return tuple(found)


def _sort_here(opened: Window, focus: dict[str, Any]) -> Sorted:
    after = []
    for key in ("Enter", " "):
        opened.press(key)
        after.append(opened.ask(_FOCUS))
    return Sorted(
        heading=focus["heading"],
        outlined=focus["outlined"],
        seen=focus["seen"],
        orders=tuple(told["order"] for told in after),
        marked=tuple(told["marked"] for told in after),
        values=tuple(tuple(told["values"]) for told in after),
        rows=tuple(tuple(told["rows"]) for told in after),
    )


def _numbers(values: list[str]) -> list[float] | None:
    try:
        return [float(value) for value in values]
    except ValueError:
        return None


def _chromium() -> str:
    assert CHROMIUM, "this test needs Chromium, which is not here: apt-get install chromium"
    return CHROMIUM


def _run(folder: str, width: int, height: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [_chromium(), *_FLAGS, f"--user-data-dir={folder}/profile", f"--window-size={width},{height}", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
