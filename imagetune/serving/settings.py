"""What a server is started with: its address, its processes, and the limits that requests are held to."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.util import find_spec

from imagetune.core.text import format_list
from imagetune.core.version import name_extra
from imagetune.errors import ResourceError

LOOPBACK = ("127.0.0.1", "localhost", "::1")
"""Names of this machine that lead nobody else to it."""
_PACKAGES = ("prometheus_client", "python_multipart", "starlette", "uvicorn")


@dataclass(frozen=True)
class Limits:
    """What requests may take; whatever is beyond it is refused and never waited for.

    Attributes:
        body_bytes: Largest body of a request (413).
        buffered_bytes: Largest sum of the bodies of all requests that are being answered (503).
        files: Most images in a request (413).
        queued_images: Most images that wait for the model (503).
        body_seconds: Time in which a request's body must have come (408).
        prediction_seconds: Time after which a request isn't waited for, and a process that computes is ended (503).
        drain_seconds: Time that requests have to be answered in after SIGTERM.
    """

    body_bytes: int = 32 << 20
    buffered_bytes: int = 256 << 20
    files: int = 32
    queued_images: int = 256
    body_seconds: float = 30.0
    prediction_seconds: float = 60.0
    drain_seconds: float = 30.0


@dataclass(frozen=True)
class ServerSettings:
    """How a server is started.

    Attributes:
        host: Address to listen on.
        port: Port to listen on; 0 for a free one.
        token: What requests must bear; None to answer all of them.
        workers: Number of processes that hold the model; None for one a core, up to four; one for a GPU.
        max_batch: Most images that go through the model at a time.
        limits: What requests may take.
        training_images: Whether explanations show the nearest training image.
        host_names: Further names of this machine, under which a proxy hands on requests.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    token: str | None = field(default=None, repr=False)
    workers: int | None = None
    max_batch: int = 16
    limits: Limits = field(default_factory=Limits)
    training_images: bool = False
    host_names: tuple[str, ...] = ()

    @property
    def answered_hosts(self) -> tuple[str, ...]:
        """Names under which requests are answered; empty for any: a token, or another address, says who may ask."""
        alone = self.host in LOOPBACK and self.token is None
        return (*LOOPBACK, *(name.lower() for name in self.host_names)) if alone else ()


def require_packages() -> None:
    """Refuse to serve before anything is loaded, where a package for it is missing.

    Raises:
        ResourceError: A package is not installed.
    """
    if missing := [name for name in _PACKAGES if find_spec(name) is None]:
        what = f"needs {format_list(missing)}, which {'is' if len(missing) == 1 else 'are'} not installed"
        raise ResourceError(what, where="serve", hint=name_extra("serve"))
