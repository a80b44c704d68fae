"""The bodies of requests: read within limits, and taken apart into image files."""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError
from python_multipart.exceptions import MultipartParseError
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from imagetune.core.files import parse_json
from imagetune.core.text import format_count
from imagetune.serving.replies import RequestError
from imagetune.serving.settings import Limits

FIELD = "images"
_ACCEPTED = "send multipart/form-data with files in the field images, application/json, or an image as image/..."
_NAME_CHARACTERS = 200
_MARKS_AN_IMAGE = 50
# Of a reply that tells why a body is refused; whoever sends on for longer doesn't read it.
_LINGER_SECONDS = 2.0


class _JsonImage(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")
    name: str | None = None
    base64: str


class _JsonBody(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")
    images: list[_JsonImage]


@dataclass
class BodyBuffer:
    """The bytes of all bodies in memory, which are bounded together.

    Attributes:
        size: How many there are.
    """

    size: int = 0


@asynccontextmanager
async def receive_uploads(
    request: Request, limits: Limits, buffer: BodyBuffer
) -> AsyncGenerator[list[tuple[str, bytes]]]:
    """Give the image files of a request, by name, to the block; their bytes count as in memory until its end.

    Raises:
        RequestError: The body is too large, too slow, empty, or of another kind.
        ClientDisconnect: The client has left.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    _check_type(kind, request.headers)
    body = await _read(request, limits, buffer)
    size = len(body)
    try:
        if kind == "multipart/form-data":
            uploads = await _parse_multipart(request.headers, body, limits)
        else:
            uploads = _parse_json(body, limits) if kind == "application/json" else [("image", body)]
        # The files alone are kept while they wait for the model.
        del body
        _check(uploads, limits)
        yield uploads
    finally:
        buffer.size -= size


def _check_type(kind: str, headers: Headers) -> None:
    if headers.get("content-length") == "0":
        raise _refuse_empty()
    if not (kind.startswith("image/") or kind in ("multipart/form-data", "application/json")):
        raise RequestError(415, "unsupported_type", f"{kind or 'no type'}: {_ACCEPTED}.")


async def _read(request: Request, limits: Limits, buffer: BodyBuffer) -> bytes:
    """Return the body, whose bytes are counted in the buffer from then on."""
    size, chunks = 0, []
    try:
        async with asyncio.timeout(limits.body_seconds):
            if _read_length(request.headers) > limits.body_bytes:
                await _refuse_large(request, limits)
            async for chunk in request.stream():
                size += len(chunk)
                buffer.size += len(chunk)
                chunks.append(chunk)
                if size > limits.body_bytes:
                    chunks.clear()
                    await _refuse_large(request, limits)
                if buffer.size > limits.buffered_bytes:
                    what = "The server holds as many bytes of images as it may. Try again."
                    raise RequestError(503, "overloaded", what, {"Retry-After": "1", "Connection": "close"})
        return b"".join(chunks)
    except BaseException as error:
        buffer.size -= size
        if not isinstance(error, TimeoutError):
            raise
        what = f"The body did not come within {limits.body_seconds:g} seconds."
        raise RequestError(408, "body_too_slow", what, {"Connection": "close"}) from error


def _read_length(headers: Headers) -> int:
    declared = headers.get("content-length", "")
    return int(declared) if declared.isdigit() else 0


async def _refuse_large(request: Request, limits: Limits) -> None:
    """Refuse a body; read on for a moment before, as most clients read no reply before they have sent everything."""
    try:
        async with asyncio.timeout(_LINGER_SECONDS):
            rest = 4 * limits.body_bytes
            async for chunk in request.stream():
                rest -= len(chunk)
                if rest < 0:
                    break
    except (TimeoutError, RuntimeError):
        pass
    what = f"The body is larger than {limits.body_bytes:,} bytes."
    raise RequestError(413, "body_too_large", what, {"Connection": "close"})


def _refuse_empty() -> RequestError:
    return RequestError(400, "empty", "There is no image in the request.")


def _check(uploads: list[tuple[str, bytes]], limits: Limits) -> None:
    if len(uploads) > limits.files:
        what = f"The request has more than the {format_count(limits.files, 'image')} allowed."
        raise RequestError(413, "too_many_images", what)
    if not any(data for _, data in uploads):
        raise _refuse_empty()


class _MemoryParser(MultiPartParser):
    """A parser that writes no file: the body is in memory already, and images of users belong on no disk."""

    spool_max_size = 1 << 40


async def _parse_multipart(headers: Headers, body: bytes, limits: Limits) -> list[tuple[str, bytes]]:
    async def stream() -> AsyncGenerator[bytes, None]:
        yield body
        yield b""

    try:
        # One more than allowed, which `_check` refuses; far more end here.
        form = await _MemoryParser(headers, stream(), max_files=limits.files + 1, max_fields=limits.files).parse()
    except (MultiPartException, MultipartParseError, KeyError, ValueError) as error:
        if "Too many" in str(error):
            _check([("", b"1")] * (limits.files + 1), limits)
        raise RequestError(400, "malformed", "The multipart body can't be read.") from error
    try:
        files = [file for file in form.getlist(FIELD) if isinstance(file, UploadFile)]
        if not files:
            raise RequestError(400, "empty", f"There is no file in the field {FIELD}.")
        return [(_shorten(file.filename, number), await file.read()) for number, file in enumerate(files)]
    finally:
        await form.close()


def _parse_json(body: bytes, limits: Limits) -> list[tuple[str, bytes]]:
    # A body of nothing but small values would take twenty times its size as Python objects. Base64 has none of these.
    if sum(body.count(mark) for mark in (b",", b"[", b"{")) > _MARKS_AN_IMAGE * (limits.files + 1):
        raise RequestError(400, "malformed", 'The body has more values than {"images": [...]} needs.')
    try:
        images = _JsonBody.model_validate(parse_json(body)).images
        return [
            (_shorten(image.name, number), base64.b64decode(image.base64, validate=True))
            for number, image in enumerate(images)
        ]
    except ValidationError as error:
        first: Any = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"])) or "body"
        raise RequestError(400, "malformed", f"{place}: {first['msg']}.") from error
    except binascii.Error as error:
        raise RequestError(400, "malformed", "An image is not in base64.") from error
    except (ValueError, RecursionError) as error:
        raise RequestError(400, "malformed", "The body is not JSON.") from error


def _shorten(name: str | None, number: int) -> str:
    """Return the name of an image as it is answered: without folders, and not endless."""
    return PurePath((name or "").replace("\\", "/")).name[:_NAME_CHARACTERS] or f"image {number + 1}"
