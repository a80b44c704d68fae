"""A window of headless Chromium that is steered as by hand: real keys, and questions to its page.

Speaks the Chrome DevTools Protocol over the browser's own pipes (``--remote-debugging-pipe``: JSON messages that end in
a zero byte), so that it needs neither a port nor a library.
"""

from __future__ import annotations

import base64
import json
import os
import select
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PREDICTION_SECONDS = 60.0
# What a keyboard sends: the key's name, its code, its Windows key code, the text that it writes.
KEYS = {
    "Tab": ("Tab", 9, ""),
    "Enter": ("Enter", 13, "\r"),
    " ": ("Space", 32, " "),
    "Escape": ("Escape", 27, ""),
    "ArrowDown": ("ArrowDown", 40, ""),
    "ArrowUp": ("ArrowUp", 38, ""),
    "ArrowLeft": ("ArrowLeft", 37, ""),
    "ArrowRight": ("ArrowRight", 39, ""),
}
_SHIFT = 8
_TROUBLE = ("Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown")


class Window:
    """One page in a browser of its own.

    Attributes:
        console: Every message so far: errors, warnings, refused requests, exceptions.
    """

    def __init__(self, asked: int, predicted: int) -> None:
        """Take the page that the browser has opened.

        Args:
            asked: File descriptor that the browser reads from.
            predicted: File descriptor that the browser writes to.
        """
        self.console: list[str] = []
        self._asked, self._predicted = asked, predicted
        self._rest = b""
        self._number = 0
        self._session: str | None = None
        targets = self._ask("Target.getTargets")["targetInfos"]
        target = next(found["targetId"] for found in targets if found["type"] == "page")
        self._session = self._ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self._ask(f"{domain}.enable")

    def open(self, page: Path | str, *, width: int, height: int) -> None:
        """Show a file or an address, in a window of any width, and wait until all of it is there."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self._ask("Emulation.setDeviceMetricsOverride", **size)
        self._ask("Page.navigate", url=page if isinstance(page, str) else page.absolute().as_uri())
        end = time.monotonic() + PREDICTION_SECONDS
        while self._next(end).get("method") != "Page.loadEventFired":
            pass

    def press(self, key: str, *, shift: bool = False) -> None:
        """Press and release a key of `KEYS`, as a keyboard would: the page can't tell the difference."""
        code, number, text = KEYS[key]
        described = {
            "key": key,
            "code": code,
            "windowsVirtualKeyCode": number,
            "nativeVirtualKeyCode": number,
            "modifiers": _SHIFT if shift else 0,
        }
        down = {"type": "keyDown", "text": text} if text else {"type": "rawKeyDown"}
        self._ask("Input.dispatchKeyEvent", **down, **described)
        self._ask("Input.dispatchKeyEvent", type="keyUp", **described)

    def choose_files(self, selector: str, files: Sequence[Path]) -> None:
        """Choose files in the ``input`` that a CSS selector finds, as its dialog does."""
        root = self._ask("DOM.getDocument")["root"]["nodeId"]
        node = self._ask("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self._ask("DOM.setFileInputFiles", nodeId=node, files=[str(file.absolute()) for file in files])

    def prefer_dark(self) -> None:
        """Let pages know that dark colours are preferred."""
        self._ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])

    def draw(self, out: Path) -> Path:
        """Draw the whole page as a PNG."""
        drawn = self._ask("Page.captureScreenshot", captureBeyondViewport=True)["data"]
        out.write_bytes(base64.b64decode(drawn))
        return out

    def await_true(self, expression: str) -> None:
        """Wait until a JavaScript expression is true.

        Raises:
            AssertionError: It isn't in time.
        """
        end = time.monotonic() + PREDICTION_SECONDS
        while not self.ask(f"Boolean({expression})"):
            assert time.monotonic() < end, (expression, self.console)
            time.sleep(0.05)

    def ask(self, expression: str) -> Any:
        """Return what a JavaScript expression gives, as JSON can say it.

        Raises:
            AssertionError: It throws.
        """
        prediction = self._ask("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in prediction, prediction["exceptionDetails"]
        return prediction["result"].get("value")

    def _ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._asked, json.dumps(message).encode() + b"\0")
        end = time.monotonic() + PREDICTION_SECONDS
        while (prediction := self._next(end)).get("id") != self._number:
            pass
        assert "error" not in prediction, (method, prediction["error"])
        result: dict[str, Any] = prediction["result"]
        return result

    def _next(self, end: float) -> dict[str, Any]:
        """Return the browser's next message, having noted what it says of the console."""
        while b"\0" not in self._rest:
            assert select.select([self._predicted], [], [], max(0.0, end - time.monotonic()))[0], (
                "no prediction in time"
            )
            read = os.read(self._predicted, 1 << 16)
            assert read, "the browser has gone"
            self._rest += read
        line, self._rest = self._rest.split(b"\0", 1)
        message: dict[str, Any] = json.loads(line)
        if message.get("method") in _TROUBLE:
            self.console.append(json.dumps(message["params"]))
        return message


@contextmanager
def open_window(command: Sequence[str], page: Path | str, *, width: int, height: int) -> Iterator[Window]:
    """Open a page in a browser of its own, which ends with the block.

    Args:
        command: Chromium with its flags.
        page: An HTML file, or an address.
        width: Of the window in pixels; any, unlike ``--window-size``, which stops at 500.
        height: Likewise.
    """
    to_browser, asked = os.pipe()
    predicted, from_browser = os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        # The browser reads from descriptor 3 and writes to 4, whatever numbers the pipes have here.
        places = 'read=$1 write=$2; shift 2; exec "$@" 3</dev/fd/"$read" 4>/dev/fd/"$write"'
        flags = ("--remote-debugging-pipe", f"--user-data-dir={folder}/profile", "about:blank")
        shell = ["sh", "-c", places, "sh", str(to_browser), str(from_browser), *command, *flags]
        browser = subprocess.Popen(shell, pass_fds=(to_browser, from_browser), stderr=subprocess.DEVNULL)
        os.close(to_browser)
        os.close(from_browser)
        try:
            window = Window(asked, predicted)
            window.open(page, width=width, height=height)
            yield window
        finally:
            os.close(asked)
            os.close(predicted)
            browser.terminate()
            browser.wait(timeout=PREDICTION_SECONDS)
