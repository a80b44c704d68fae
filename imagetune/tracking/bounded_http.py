"""HTTP requests to tracking servers that are bounded in bytes and seconds, whatever the server answers.

The timeout of requests and urllib3 is that of one read: a server that sends a byte a second never exceeds it, and one
that sends without end is read until the memory is full. Here each request has one budget, which is asked below
everything that reads: status line, headers, chunks and body alike.
"""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.util import Retry

ANSWER_BYTES = 16 * 2**20
"""An answer that is read into memory may have so many bytes; as JSON it becomes some ten times as large."""
DOWNLOAD_BYTES = 8 * 2**30
"""A file may have so many bytes, unless `limit_download` says less."""
BYTES_PER_SECOND = 16 * 1024
"""Files that move more slowly than this use up the time of their request."""
_DEFAULT_SECONDS = 30.0
_MAX_REDIRECTS = 5
_PIECE_BYTES = 1 << 16
_HEADER_BYTES = 1 << 20
# What may exist once only: such a request isn't repeated, as the answer may be lost and not the request.
_CREATING = "/create"


class AnswerError(Exception):
    """A server's answer exceeds what a request may cost."""


@dataclass
class Traffic:
    """What a thread's requests have done so far: for those who wait for that thread.

    Attributes:
        sent: Number of bytes sent.
        waiting: Whether a request is under way.
    """

    sent: int = 0
    waiting: bool = False


@dataclass
class _Budget:
    """The bytes and seconds of one request.

    Attributes:
        seconds: How long it may take; moving files adds to it, a second for each ``BYTES_PER_SECOND``.
        bytes_left: How many bytes may still be received.
        streamed: Whether what is received is a file, and not an answer.
    """

    seconds: float
    bytes_left: int
    streamed: bool
    started: float = field(default_factory=time.monotonic)
    moved: int = 0

    def seconds_left(self) -> float:
        """Return how many seconds are left.

        Raises:
            TimeoutError: None.
        """
        left = self.started + self.seconds + self.moved / BYTES_PER_SECOND - time.monotonic()
        if left <= 0:
            raise TimeoutError(f"the answer was not complete within {self.seconds:.0f} s")
        return left

    def receive(self, count: int) -> None:
        """Count received bytes.

        Raises:
            AnswerError: They are more than there may be.
        """
        self.bytes_left -= count
        if self.bytes_left < 0:
            raise AnswerError("the answer of the server has no end, or more bytes than it may have")
        if self.streamed:
            self.moved += count


class _Local(threading.local):
    """What belongs to the requests of one thread."""

    def __init__(self) -> None:
        self.depth = 0
        self.download_bytes = DOWNLOAD_BYTES
        self.budget = _Budget(_DEFAULT_SECONDS, ANSWER_BYTES, streamed=False)
        self.sessions: dict[object, _BoundedSession] = {}


_local = _Local()
_traffic: dict[int, Traffic] = {}


def get_traffic(thread: threading.Thread) -> Traffic:
    """Return what a thread's requests have done so far."""
    return _traffic.setdefault(thread.ident or 0, Traffic())


@contextmanager
def bound_requests() -> Iterator[None]:
    """Bound all requests that MLflow makes from this thread during the block; those of the user's own code stay."""
    _bound_mlflow()
    _local.depth += 1
    try:
        yield
    finally:
        _local.depth -= 1


@contextmanager
def limit_download(size: int) -> Iterator[None]:
    """Limit files that are downloaded in the block to a number of bytes."""
    before, _local.download_bytes = _local.download_bytes, min(size, DOWNLOAD_BYTES)
    try:
        yield
    finally:
        _local.download_bytes = before


def request_headers(url: str, timeout: tuple[float, float]) -> None:
    """Request an address and forget what it answers.

    Args:
        url: The address.
        timeout: Seconds to connect, and to answer.

    Raises:
        requests.exceptions.RequestException: It can't be reached, or doesn't answer in time.
    """
    with _BoundedSession(_build_retry({"max_retries": 0})) as session:
        session.get(url, timeout=timeout, stream=True, allow_redirects=False).close()


def _bound_mlflow() -> None:
    """Let MLflow take bounded sessions in threads that ask for it: all of its HTTP requests come from one function."""
    from mlflow.utils import request_utils

    unbounded = request_utils._get_request_session
    if not hasattr(unbounded, "unbounded"):
        request_utils._get_request_session = _choose_session(unbounded)


def _choose_session(unbounded: Callable[..., requests.Session]) -> Callable[..., requests.Session]:
    def choose(*given: Any, **named: Any) -> requests.Session:
        if not _local.depth:
            return unbounded(*given, **named)
        names = ("max_retries", "backoff_factor", "backoff_jitter", "retry_codes", "raise_on_status")
        settings = dict(zip(names, given, strict=False)) | named
        key = tuple(str(settings.get(name)) for name in names)
        if key not in _local.sessions:
            _local.sessions[key] = _BoundedSession(_build_retry(settings))
        return _local.sessions[key]

    choose.unbounded = unbounded  # type: ignore[attr-defined]
    return choose


def _build_retry(settings: Mapping[str, Any]) -> Retry:
    """Return urllib3's retries by MLflow's settings, which never sleep for as long as a server likes."""
    return Retry(
        total=settings["max_retries"],
        redirect=0,
        status_forcelist=settings.get("retry_codes", ()),
        backoff_factor=settings.get("backoff_factor", 0),
        raise_on_status=settings.get("raise_on_status", True),
        allowed_methods=None,
        respect_retry_after_header=False,
    )


class _BoundedSession(requests.Session):
    """A session whose requests have budgets."""

    def __init__(self, retry: Retry) -> None:
        super().__init__()
        self.max_redirects = _MAX_REDIRECTS
        adapter = _BoundedAdapter(max_retries=retry)
        self.mount("http://", adapter)
        self.mount("https://", adapter)
        self._once = _BoundedAdapter(max_retries=Retry(total=0, redirect=0))

    def get_adapter(self, url: str) -> Any:
        """Return the adapter for an address: one that doesn't repeat requests for what creates something."""
        found = super().get_adapter(url)
        return self._once if url.partition("?")[0].endswith(_CREATING) else found

    def request(self, *given: Any, **named: Any) -> requests.Response:
        """Make a request; meanwhile the thread counts as waiting."""
        traffic = get_traffic(threading.current_thread())
        traffic.waiting = True
        try:
            return super().request(*given, **named)
        finally:
            traffic.waiting = False


class _BoundedAdapter(HTTPAdapter):
    """An adapter that gives each request a budget."""

    def init_poolmanager(self, *given: Any, **named: Any) -> None:
        """Make the pools of bounded connections."""
        super().init_poolmanager(*given, **named)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, proxy: str, **named: Any) -> Any:
        """Return the pools of bounded connections to a proxy."""
        manager: Any = super().proxy_manager_for(proxy, **named)
        manager.pool_classes_by_scheme = _POOLS
        return manager

    def send(
        self, request: requests.PreparedRequest, stream: bool = False, timeout: Any = None, *given: Any, **named: Any
    ) -> requests.Response:
        """Send a request and return the answer.

        Raises:
            AnswerError: The answer is compressed, which may make much of little.
        """
        limit = _local.download_bytes if stream else ANSWER_BYTES
        _local.budget = _Budget(_sum_seconds(timeout), limit + _HEADER_BYTES, stream)
        request.headers["Accept-Encoding"] = "identity"
        response = super().send(request, stream, timeout, *given, **named)
        if response.headers.get("Content-Encoding", "identity").strip().lower() not in ("", "identity"):
            response.close()
            raise AnswerError("the answer of the server is compressed, which was not asked for")
        # As JSON is. Otherwise requests guesses from all of the answer, or takes whatever codec the server names.
        response.encoding = "utf-8"
        return response


def _sum_seconds(timeout: Any) -> float:
    """Return the seconds that a request may take in all, from what requests takes as a timeout."""
    parts = timeout if isinstance(timeout, tuple) else (timeout,)
    return float(sum(part for part in parts if isinstance(part, int | float))) or _DEFAULT_SECONDS


class _BoundedReader(io.RawIOBase):
    """What comes from a socket, as far as the budget goes."""

    def __init__(self, raw: io.RawIOBase, sock: Any, budget: _Budget) -> None:
        super().__init__()
        self._raw, self._sock, self._budget = raw, sock, budget

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any, /) -> int | None:
        """Read what has come into a buffer, and return how many bytes that were."""
        self._sock.settimeout(self._budget.seconds_left())
        count: int | None = self._raw.readinto(buffer)
        self._budget.receive(count or 0)
        return count

    def close(self) -> None:
        """Close what it reads from."""
        self._raw.close()
        super().close()


class _BoundedSocket:
    """A connected socket, with or without TLS, whose reads and writes are on the budget of the thread's request."""

    def __init__(self, sock: Any) -> None:
        self._sock = sock

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)

    def makefile(self, mode: str, *_: Any, **__: Any) -> io.BufferedReader:
        """Return a reader of the next answer."""
        return io.BufferedReader(_BoundedReader(self._sock.makefile(mode, buffering=0), self._sock, _local.budget))

    def sendall(self, data: Any, *flags: Any) -> None:
        """Send bytes in pieces, as long as the budget lasts."""
        traffic, view = get_traffic(threading.current_thread()), memoryview(data).cast("B")
        for start in range(0, len(view), _PIECE_BYTES):
            piece = view[start : start + _PIECE_BYTES]
            self._sock.settimeout(_local.budget.seconds_left())
            self._sock.sendall(piece, *flags)
            _local.budget.moved += len(piece)
            traffic.sent += len(piece)


class _Connection(HTTPConnection):
    def connect(self) -> None:
        super().connect()
        self.sock: Any = _BoundedSocket(self.sock)


class _SecureConnection(HTTPSConnection):
    def connect(self) -> None:
        super().connect()
        self.sock: Any = _BoundedSocket(self.sock)


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = _SecureConnection


_POOLS = {"http": _Pool, "https": _SecurePool}
