"""The page at `/`: one self-contained document that sends images to this server and shows what it replies.

It holds no data of its own, not even the model's name, so it needs no token; what it shows it asks `/v1/model`,
`/v1/predict` and `/v1/explain` for, and puts into the document as text.
"""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from importlib.resources import files

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import BaseRoute, Route

PAGE = "/"
_INLINE = re.compile(r"<(script|style)>(.*?)</\1>", re.DOTALL)
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    # A newer server may have a newer page; asking again is cheap.
    "Cache-Control": "no-cache",
}


def build_page_routes() -> list[BaseRoute]:
    """Return the route of the page."""

    async def page(_: Request) -> Response:
        text = read_page()
        return HTMLResponse(text, headers={**_HEADERS, "Content-Security-Policy": build_policy(text)})

    return [Route(PAGE, page)]


@cache
def build_policy(page: str) -> str:
    """Return the Content-Security-Policy of a page: its own script and style, and requests to its own server alone."""
    hashes: dict[str, list[str]] = {"script": [], "style": []}
    for kind, text in _INLINE.findall(page):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")
        hashes[kind].append(f"'sha256-{digest}'")
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src {' '.join(hashes['script'])}",
            f"style-src {' '.join(hashes['style'])}",
            "img-src blob: data:",
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        )
    )


@cache
def read_page() -> str:
    """Return the page."""
    return files("imagetune.serving").joinpath("templates", "page.html").read_text(encoding="utf-8")
