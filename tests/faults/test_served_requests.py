"""Requests that a server must not take: too large, too slow, no images, too many at once; and its end."""

import io
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest
from once import made_once
from PIL import Image
from served import build_form, make_untrained_run, serving

TOKEN = "0123456789-token"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return made_once(tmp_path_factory, "untrained_faults", lambda folder: make_untrained_run(folder / "run")) / "run"


@pytest.fixture(scope="module")
def served(run, tmp_path_factory):
    """A server that takes requests of 1 MiB with at most three images, and lets three images wait."""
    options = ("--max-body", "1", "--max-images", "3", "--max-queue", "3", "--workers", "1", "--max-seconds", "2")
    with serving(run, tmp_path_factory.mktemp("served"), *options) as server:
        yield server


@pytest.fixture(scope="module")
def image():
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(autouse=True)
def memory_stays_flat(served):
    """During no test the server and its model process together hold 64 MB more than before, not even for a moment."""
    processes = list_processes(served)
    for process in processes:
        # Linux then counts the peak anew.
        Path(f"/proc/{process.pid}/clear_refs").write_text("5")
    before = sum(process.memory_info().rss for process in processes)
    yield
    # The last test ends it, and another one its model process.
    if list_processes(served) == processes:
        assert sum(map(read_peak, processes)) < before + 64e6


def list_processes(served):
    if served.process.poll() is not None:
        return []
    process = psutil.Process(served.process.pid)
    return [process, *process.children()]


def read_peak(process):
    status = Path(f"/proc/{process.pid}/status").read_text()
    return 1024 * int(re.search(r"VmHWM:\s+(\d+)", status).group(1))


def require_refusal(reply, status, code):
    assert (reply.status, reply.json()["error"]["code"]) == (status, code)
    assert set(reply.json()) == {"error"}
    # No path of this machine: media types have their slash within a word.
    assert not re.search(r"(^|[\s'\"])/\w", reply.json()["error"]["message"])


def connect(served):
    return socket.create_connection(("127.0.0.1", served.port), timeout=30)


def read_reply(sock):
    """Return the status and the JSON of a reply whose connection the server closes."""
    content = b""
    while chunk := sock.recv(1 << 16):
        content += chunk
    head, _, body = content.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)


# 50: oversize, chunked, slow body


def test_a_body_that_is_too_large_is_refused(served):
    require_refusal(served.send("/v1/predict", bytes(2 << 20), "image/png"), 413, "body_too_large")


def send_again_and_again(sock, piece, most):
    """Return how many bytes were taken, at most so many, before the server closed the connection."""
    sent = 0
    try:
        while sent < most:
            sock.sendall(piece)
            sent += len(piece)
    except OSError:
        pass
    return sent


def test_a_body_without_end_is_refused(served):
    with connect(served) as sock:
        sock.sendall(
            b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\n"
            b"Content-Type: image/png\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        assert send_again_and_again(sock, b"10000\r\n" + bytes(1 << 16) + b"\r\n", 1 << 30) < 64 << 20
    assert served.send("/healthz").status == 200


def test_a_head_without_end_is_refused(served):
    with connect(served) as sock:
        sock.sendall(b"GET /healthz HTTP/1.1\r\n")
        assert send_again_and_again(sock, b"x: " + b"y" * 4096 + b"\r\n", 1 << 28) < 64 << 20
    assert served.send("/healthz").status == 200


def test_a_body_of_very_many_small_values_is_refused(served):
    body = b'{"images": [' + b"[]," * 300_000 + b"[]]}"
    require_refusal(served.send("/v1/predict", body, "application/json"), 400, "malformed")


def test_a_body_that_comes_too_slowly_is_refused(served):
    with connect(served) as sock:
        head = b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"
        sock.sendall(head + b"Content-Length: 1000\r\n\r\nabc")
        status, document = read_reply(sock)
    assert (status, document["error"]["code"]) == (408, "body_too_slow")


def test_more_images_than_allowed_are_refused(served, image):
    for count in (4, 200):
        reply = served.send_files({f"{number}.png": image for number in range(count)})
        require_refusal(reply, 413, "too_many_images")


# 51: text, truncated, bombs


@pytest.mark.parametrize("data", [b"<!doctype html><p>no image", b"hello", b"\x89PNG\r\n\x1a\n" + bytes(50)])
def test_what_is_no_image_is_refused(served, data):
    require_refusal(served.send("/v1/predict", data, "image/png"), 422, "unreadable_image")


def test_a_truncated_image_is_refused(served, image):
    require_refusal(served.send("/v1/predict", image[: len(image) // 2], "image/png"), 422, "unreadable_image")


def test_an_image_of_too_many_pixels_is_refused(served):
    require_refusal(served.send("/v1/predict", draw_bomb(30_000, 30_000), "image/png"), 413, "too_many_pixels")


def test_an_image_that_takes_too_long_to_decode_is_refused(served):
    # Few pixels, as numbers in text with a comment between them, each of which moves all that follows.
    slow = b"P3 2 2 255\n" + b"#\n" * 400_000
    require_refusal(served.send("/v1/predict", slow, "image/x-portable-pixmap"), 422, "unreadable_image")


def draw_bomb(width, height):
    """Return a PNG of a few kilobytes that says it is of so many pixels."""

    def chunk(kind, data):
        return len(data).to_bytes(4) + kind + data + zlib.crc32(kind + data).to_bytes(4)

    header = width.to_bytes(4) + height.to_bytes(4) + bytes([8, 2, 0, 0, 0])
    packed = zlib.compress(bytes(1 << 20))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


# 52: wrong type, empty


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "video/mp4", ""])
def test_a_body_of_another_type_is_refused(served, image, kind):
    require_refusal(served.send("/v1/predict", image, kind or "x"), 415, "unsupported_type")


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"", "image/png"),
        (b"", ""),
        (b'{"images": []}', "application/json"),
        (build_form({}), "multipart/form-data; boundary=edge"),
        (build_form({"a.png": b""}), "multipart/form-data; boundary=edge"),
    ],
)
def test_a_request_without_an_image_is_refused(served, body, kind):
    require_refusal(served.send("/v1/predict", body, kind), 400, "empty")


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"{", "application/json"),
        (b"[" * 150, "application/json"),
        (b'{"images": [{"base64": "?"}]}', "application/json"),
        (b'{"images": [{"path": "x"}]}', "application/json"),
        (b"no form", "multipart/form-data; boundary=edge"),
        (b"no form", "multipart/form-data"),
    ],
)
def test_a_body_that_cannot_be_taken_apart_is_refused(served, body, kind):
    require_refusal(served.send("/v1/predict", body, kind), 400, "malformed")


# 53: overload


def test_more_than_may_wait_is_refused_while_health_is_answered(served, image):
    stop, delays, replies = threading.Event(), [], []

    def ask_health():
        while not stop.is_set():
            begun = time.perf_counter()
            assert served.send("/healthz").status == 200
            delays.append(time.perf_counter() - begun)
            time.sleep(0.05)

    def send(_):
        replies.extend(served.send_files({f"{number}.png": image for number in range(3)}) for _ in range(6))

    health = threading.Thread(target=ask_health)
    health.start()
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(send, range(16)))
    stop.set()
    health.join()
    refused = [reply for reply in replies if reply.status == 503]
    assert {reply.status for reply in replies} == {200, 503}
    for reply in refused:
        require_refusal(reply, 503, "overloaded")
        assert int({name.lower(): value for name, value in reply.headers.items()}["retry-after"]) >= 1
    assert max(delays) < 1


def test_a_process_that_dies_is_replaced_and_its_image_answered(served, image):
    victim = served.model_process
    with ThreadPoolExecutor(2) as pool:
        victim.send_signal(signal.SIGSTOP)
        waiting = pool.submit(served.send, "/v1/predict", image, "image/png")
        time.sleep(0.3)
        victim.kill()
        assert served.send("/healthz").status == 200
        assert waiting.result(120).status == 200
    assert served.send("/readyz").status == 200
    assert served.model_process.pid != victim.pid
    assert "imagetune_worker_restarts_total 1.0" in served.send("/metrics").body.decode()


# 54: the address, the token, and SIGTERM; that last, as the server is gone then


def test_by_default_only_this_machine_is_listened_to():
    from imagetune.cli.serve import command

    assert {option.name: option.default for option in command.params}["host"] == "127.0.0.1"


def test_the_token_is_asked_for_everywhere_but_at_health(run, image, tmp_path):
    file = tmp_path / "token"
    file.write_text(TOKEN + "\n")
    with serving(run, tmp_path, "--token-file", str(file), "--workers", "1") as server:
        for path in ("/v1/model", "/metrics", "/readyz", "/openapi.json", "/nothing"):
            assert server.send(path).status == 401
        assert server.send("/healthz").status == 200
        for wrong in ("", "Bearer", f"Bearer {TOKEN}x", f"Basic {TOKEN}", "Bearer \xe9"):
            reply = server.send("/v1/predict", image, "image/png", Authorization=wrong)
            require_refusal(reply, 401, "unauthorized")
        right = f"Bearer {TOKEN}"
        assert server.send("/v1/predict", image, "image/png", Authorization=right).status == 200
        assert server.send("/v1/labels", Authorization=right).status == 200
        assert TOKEN not in server.log.read_text()
        assert server.stop() == 0


def test_an_address_in_use_is_an_error_of_one_line(run, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        command = [sys.executable, "-m", "imagetune", "serve", str(run), "--port", str(taken.getsockname()[1])]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stderr.count("\n")) == (5, 1)
    assert "can't be listened on" in done.stderr


def test_the_server_answers_what_has_come_and_ends_in_good_order(served, image):
    model = served.model_process
    with ThreadPoolExecutor(3) as pool:
        # Held up, so that all three are there when the signal comes.
        model.send_signal(signal.SIGSTOP)
        waiting = [pool.submit(served.send, "/v1/predict", image, "image/png") for _ in range(3)]
        time.sleep(0.5)
        served.process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        model.send_signal(signal.SIGCONT)
        assert [future.result().status for future in waiting] == [200] * 3
    assert served.process.wait(30) == 0
    assert not psutil.pid_exists(model.pid)
    assert served.events()[-1]["event"] == "stopped"
    assert not [event for event in served.events() if event.get("level") == "error"]
