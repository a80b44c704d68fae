"""Servers on this machine that answer what no MLflow server does, and a proxy that drops answers of one that does."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

Answer = Callable[[socket.socket, bytes, bytes], None]
"""Answers a request on a socket: its first line and its body are given."""


def body(content: bytes, *headers: str, status: str = "200 OK") -> bytes:
    """Return a complete answer."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(content)}", "Connection: close", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + content


def send_endlessly(sock: socket.socket, line: bytes, request: bytes) -> None:
    """Send an answer without end as fast as it is taken."""
    del line, request
    sock.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
    piece = b" " * (1 << 16)
    while True:
        sock.sendall(piece)


def drip(content: bytes, seconds: float = 0.2) -> Answer:
    """Return an answer that comes a byte at a time."""

    def answer(sock: socket.socket, line: bytes, request: bytes) -> None:
        del line, request
        for at in range(len(content)):
            sock.sendall(content[at : at + 1])
            time.sleep(seconds)

    return answer


def say(content: bytes) -> Answer:
    """Return an answer of some bytes."""
    return lambda sock, _line, _request: sock.sendall(content)


def say_json(value: object, status: str = "200 OK") -> Answer:
    """Return an answer in JSON."""
    return say(body(json.dumps(value).encode(), "Content-Type: application/json", status=status))


@contextmanager
def serve(answer: Answer, *, healthy: bool = True) -> Iterator[str]:
    """Serve requests, each on a connection and in a thread of its own, and yield the address.

    Args:
        answer: Answers each request.
        healthy: Whether requests for /health are answered as by MLflow instead.
    """

    def meet(sock: socket.socket) -> None:
        with suppress(OSError, ValueError), sock:
            sock.settimeout(60)
            line, content = read_request(sock)
            if healthy and b"/health" in line:
                sock.sendall(body(b"OK"))
            else:
                answer(sock, line, content)

    with listen(meet) as uri:
        yield uri


@contextmanager
def lose_answers(port: int, lost: Callable[[bytes], bool]) -> Iterator[str]:
    """Pass requests on to a server of this machine, and drop the connection instead of each answer that is ``lost``."""

    def meet(sock: socket.socket) -> None:
        with suppress(OSError, ValueError), sock, socket.create_connection(("127.0.0.1", port), timeout=60) as server:
            line, _, whole = read_whole_request(sock)
            server.sendall(whole.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1))
            answer = b""
            while piece := server.recv(1 << 16):
                answer += piece
            if not lost(line):
                sock.sendall(answer)

    with listen(meet) as uri:
        yield uri


@contextmanager
def listen(meet: Callable[[socket.socket], None]) -> Iterator[str]:
    """Call ``meet`` for every connection, in a thread of its own, and yield the address."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        listener.settimeout(0.2)
        over = threading.Event()

        def accept() -> None:
            while not over.is_set():
                with suppress(OSError):
                    sock, _ = listener.accept()
                    threading.Thread(target=meet, args=(sock,), daemon=True).start()

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            over.set()
            thread.join()


def read_request(sock: socket.socket) -> tuple[bytes, bytes]:
    """Return the first line and the body of a request."""
    line, content, _ = read_whole_request(sock)
    return line, content


def read_whole_request(sock: socket.socket) -> tuple[bytes, bytes, bytes]:
    """Return the first line and the body of a request, and all of it."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = sock.recv(1 << 16)
        if not piece:
            raise ValueError("the request was cut short")
        data += piece
    head, _, content = data.partition(b"\r\n\r\n")
    length = next(
        (int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0
    )
    while len(content) < length:
        content += sock.recv(1 << 16)
    return head.split(b"\r\n")[0], content, head + b"\r\n\r\n" + content
