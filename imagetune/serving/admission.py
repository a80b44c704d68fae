"""What every request passes first and last: its host, the bearer token, one line in the log, and the metrics."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from imagetune.serving.logs import log_event
from imagetune.serving.metrics import Metrics
from imagetune.serving.page import PAGE
from imagetune.serving.replies import RequestError, build_error_reply

HEALTH = "/healthz"
# The page holds nothing of the model; what it shows it asks for with the token.
_OPEN = (HEALTH, PAGE)
_PATH_CHARACTERS = 100


class Admission:
    """Middleware that refuses requests without the token or to other hosts, and logs and counts all of them.

    Args:
        app: What answers them.
        token: The bearer token; None to let all requests pass.
        hosts: Names under which the server may be asked; empty for any. Pages of the web reach a server of this machine
            by a name of their own that they let lead here (DNS rebinding), or as a foreign ``Origin``.
        metrics: What is counted.
        paths: The paths that are counted by name; all others together, as clients could invent any number.
    """

    def __init__(
        self, app: ASGIApp, *, token: str | None, hosts: Iterable[str], metrics: Metrics, paths: Iterable[str]
    ) -> None:
        self._app, self._metrics, self._paths = app, metrics, frozenset(paths)
        self._hosts = frozenset(hosts)
        self._expected = None if token is None else f"Bearer {token}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun, status = time.perf_counter(), 0

        async def note_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            refusal = self._refuse(Headers(scope=scope), scope["path"])
            await (self._app if refusal is None else build_error_reply(refusal))(scope, receive, note_status)
        except Exception:
            status = 500
            raise
        finally:
            # 499 as nginx has it: the client left before there was a reply.
            self._note(scope, status or 499, time.perf_counter() - begun)

    def _refuse(self, headers: Headers, path: str) -> RequestError | None:
        if self._hosts:
            origin = headers.get("origin")
            # A page without an address, such as one of a file, says `null`.
            named = [headers.get("host", ""), "" if origin is None else origin.partition("://")[2] or "null"]
            if any(name and _find_host(name) not in self._hosts for name in named):
                what = "This server answers pages and programs of its own machine; see --host-name and --token-file."
                return RequestError(403, "other_host", what)
        if self._expected is None or path in _OPEN:
            return None
        given = headers.get("authorization", "").encode("latin-1", "replace")
        if secrets.compare_digest(given, self._expected):
            return None
        header = {"WWW-Authenticate": "Bearer"}
        return RequestError(401, "unauthorized", "Send the token: Authorization: Bearer TOKEN.", header)

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        known = scope["path"] if scope["path"] in self._paths else "other"
        self._metrics.requests.labels(known, str(status)).inc()
        self._metrics.request_seconds.labels(known).observe(seconds)
        found: dict[str, Any] = scope.get("state", {}).get("log", {})
        log_event(
            "request",
            method=scope["method"],
            path=scope["path"][:_PATH_CHARACTERS],
            status=status,
            milliseconds=round(1000 * seconds, 1),
            **found,
        )


def _find_host(name: str) -> str:
    """Return the host of ``host:port``; empty where it is none."""
    try:
        return urlsplit(f"//{name}").hostname or ""
    except ValueError:
        return ""
