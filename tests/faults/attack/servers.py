"""Tracking servers that are down, slow, endless, wrong or hostile, and the commands that talk to them."""

from __future__ import annotations

import gzip
import json
import shutil
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from rude_servers import Answer, body, drip, say, say_json, send_endlessly, serve

from tests.faults.attack.case import Case, Outcome, Room

NOT_SENT = frozenset({7})
SENT = frozenset({0})
RUN_ID = "0" * 31 + "1"
BAD_IDS = ("../../outside", "/etc", "..", "a\nb", "\x1b[2J", "x" * 5000, "a b", "")
# No case waits for a whole request's time.
QUICK = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "2"}


def cases() -> Iterator[Case]:
    """Yield each answer to each command, and servers that are like MLflow but for one thing."""
    for name, (answer, healthy) in _list_answers().items():
        yield _case(f"sync-{name}", _sync, partial(_serving, answer, healthy=healthy), NOT_SENT)
    # The end of a run waits for no server for more than ten seconds, and a run is finished without it.
    for name in ("endless", "dripping", "silent", "reset", "html", "gzip-bomb", "error-500"):
        answer, healthy = _list_answers()[name]
        yield _case(f"fit-{name}", _fit, partial(_serving, answer, healthy=healthy), SENT, check=_find_unfinished)
    for name, changes in _list_lies().items():
        yield _case(f"lying-{name}", _sync, partial(_lying, changes), SENT | NOT_SENT, check=_find_canary)
    for name, changes in _list_downloads().items():
        codes = frozenset({3, 5, 7, 9})
        yield _case(f"fetch-{name}", _predict, partial(_lying, changes), codes, check=_find_canary)


def _list_answers() -> Mapping[str, tuple[Answer, bool]]:
    """Return answers by name, each with whether the server's health is good all the same."""
    html = body(b"<html><h1>Welcome to nginx</h1></html>", "Content-Type: text/html")
    bomb = gzip.compress(bytes(2 * 10**8))
    found: dict[str, tuple[Answer, bool]] = {
        "endless": (send_endlessly, True),
        "endless-from-the-start": (send_endlessly, False),
        "dripping": (drip(b"HTTP/1.1 200 OK\r\n\r\n" + b"{" * 10**4), True),
        "dripping-from-the-start": (drip(b"HTTP/1.1 200 OK\r\n\r\n" + b"{" * 10**4), False),
        "dripping-header": (drip(b"HTTP/1.1 200 OK\r\nX: " + b"y" * 10**4), True),
        "silent": (lambda *_: time.sleep(30), True),
        "silent-from-the-start": (lambda *_: time.sleep(30), False),
        "reset": (_reset, True),
        "reset-from-the-start": (_reset, False),
        "closed": (say(b""), True),
        "half": (say(body(b"{}" * 1000)[:200]), True),
        "many-headers": (say(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 10**5 + b"\r\n"), True),
        "header-endless": (_send_endless_header, True),
        "chunk-huge": (say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n{"), True),
        "chunk-negative": (say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\n{}"), True),
        "length-huge": (say(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n{}"), True),
        "length-negative": (say(b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\nConnection: close\r\n\r\n{}"), True),
        "no-http": (say(b"SSH-2.0-OpenSSH_9.6\r\n"), True),
        "old-http": (say(b"{}"), True),
        "status-odd": (say(b"HTTP/1.1 999999 ???\r\n\r\n{}"), True),
        "gzip-bomb": (say(body(bomb, "Content-Encoding: gzip")), True),
        "gzip-bomb-twice": (say(body(gzip.compress(bomb), "Content-Encoding: gzip, gzip")), True),
        "charset-odd": (say(body(b"{}" * 10**6, "Content-Type: application/json; charset=idna")), True),
        "redirect-to-file": (say(_redirect("file:///etc/passwd")), True),
        "redirect-to-itself": (say(_redirect("/api/2.0/mlflow/experiments/search")), True),
        "redirect-to-nobody": (say(_redirect("http://127.0.0.1:9/")), True),
        "redirect-to-nonsense": (say(_redirect("ht!tp://[::1")), True),
        "html": (say(html), True),
        "html-from-the-start": (say(html), False),
        "empty": (say(body(b"")), True),
        "null": (say(body(b"null")), True),
        "list": (say(body(b"[1, 2]")), True),
        "nested": (say(body(b"[" * 10**6)), True),
        "digits": (say(body(b'{"experiments": ' + b"9" * 10**6 + b"}")), True),
        "not-unicode": (say(body(bytes(range(256)) * 1000)), True),
        "wrong-types": (say_json({"experiments": "all", "next_page_token": 5}), True),
        "unauthorized": (say(body(b"no", status="401 Unauthorized")), True),
        "not-found": (say(body(b"no", status="404 Not Found")), True),
        "too-many": (say(body(b"later", "Retry-After: 999999", status="429 Too Many Requests")), True),
        "unavailable": (say(body(b"later", "Retry-After: 999999", status="503 Unavailable")), True),
        "error-500": (say(body(b"\x1b[2J" + b"Traceback" * 10**5, status="500 Error")), True),
        "error-with-id": (say_json({"error_code": 7, "message": ["../.."], "run_id": "../.."}, "500 Error"), True),
    }
    return found


def _list_lies() -> Mapping[str, Mapping[str, object]]:
    """Return what a server that is otherwise like MLflow says of runs."""
    lies: dict[str, Mapping[str, object]] = {"nothing": {}}
    for number, bad in enumerate(BAD_IDS):
        lies[f"run-id-{number}"] = {"run_id": bad}
        lies[f"experiment-id-{number}"] = {"experiment_id": bad}
    lies |= {
        "artifacts-in-file": {"artifact_uri": "file://{outside}"},
        "artifacts-in-path": {"artifact_uri": "{outside}"},
        "artifacts-relative": {"artifact_uri": "../outside"},
        "artifacts-through-mlruns": {"artifact_uri": "{outside}/mlruns/../.."},
        "artifacts-of-no-kind": {"artifact_uri": "gopher://x/y"},
        "artifacts-elsewhere": {"artifact_uri": "mlflow-artifacts://127.0.0.1:9/x"},
    }
    return lies


def _list_downloads() -> Mapping[str, Mapping[str, object]]:
    """Return what such a server says of a run's files, which `predict runs:/ID` fetches."""

    def file(path: str, size: int = 3) -> dict[str, object]:
        return {"path": path, "is_dir": False, "file_size": size}

    return {
        "parent": {"files": [file("../canary.txt")]},
        "absolute": {"files": [file("/tmp/canary.txt")]},
        "encoded": {"files": [file("%2e%2e/canary.txt")]},
        "backslash": {"files": [file("..\\canary.txt")]},
        "folders-without-end": {"files": [{"path": "again", "is_dir": True}]},
        "many-files": {"files": [file(f"f{number}") for number in range(5000)]},
        "file-without-end": {"files": [file("recipe.yaml", 10)], "content": "endless"},
        "file-dripping": {"files": [file("recipe.yaml", 1000)], "content": "dripping"},
        "size-huge": {"files": [file("recipe.yaml", 10**18)]},
        "size-negative": {"files": [file("recipe.yaml", -5)]},
        "size-word": {"files": [{"path": "recipe.yaml", "is_dir": False, "file_size": "many"}]},
        "name-null": {"files": [file("a\0b")]},
        "name-long": {"files": [file("x" * 5000)]},
        "local": {"artifact_uri": "file:///etc", "files": []},
    }


def _case(
    name: str,
    command: Callable[[Path, Room], list[str]],
    during: Callable[[Path, Room], AbstractContextManager[str]],
    codes: frozenset[int],
    *,
    check: Callable[[Room, Outcome], str] = lambda _room, _outcome: "",
) -> Case:
    """Return a case whose command knows the address that its server has."""
    environment = dict(QUICK)

    @contextmanager
    def serving(room: Room) -> Iterator[None]:
        with during(room.root, room) as uri:
            environment["MLFLOW_TRACKING_URI"] = uri
            yield

    return Case(
        f"servers/{name}",
        lambda room: command(room.root, room),
        codes,
        check=check,
        during=serving,
        environment=environment,
        wall_seconds=40,
    )


def _serving(answer: Answer, _root: Path, _room: Room, *, healthy: bool) -> AbstractContextManager[str]:
    return serve(answer, healthy=healthy)


def _lying(changes: Mapping[str, object], _root: Path, room: Room) -> AbstractContextManager[str]:
    told = json.loads(json.dumps(dict(changes)).replace("{outside}", str(room.outside)))
    return serve(partial(_answer_like_mlflow, told))


def _sync(_root: Path, room: Room) -> list[str]:
    shutil.copytree(room.shared / "run", room.work / "run")
    recipe = room.work / "run" / "recipe.yaml"
    recipe.write_text(recipe.read_text(encoding="utf-8").replace("enabled: false", "enabled: true"), encoding="utf-8")
    return ["sync", str(room.work / "run")]


def _fit(_root: Path, room: Room) -> list[str]:
    recipe = str(room.shared / "recipe.yaml")
    return ["fit", recipe, "--run-dir", str(room.work / "run"), "-o", "tracking.enabled=true"]


def _predict(_root: Path, room: Room) -> list[str]:
    return ["predict", f"runs:/{RUN_ID}", str(room.shared / "new_images" / "red")]


def _answer_like_mlflow(told: Mapping[str, object], sock: socket.socket, line: bytes, content: bytes) -> None:
    """Answer as MLflow would, but for what is ``told``."""
    target = urlsplit(line.split()[1].decode())
    path, asked = target.path, parse_qs(target.query)
    run = _describe_run(told)
    if "mlflow-artifacts/artifacts" in path:
        _answer_artifacts(told, asked, sock, line, content)
    elif path.endswith("artifacts/list"):
        say_json({"files": told.get("files", [])})(sock, line, content)
    elif path.endswith("experiments/get-by-name") or path.endswith("experiments/get"):
        experiment = {"experiment_id": told.get("experiment_id", "1"), "name": "colours", "lifecycle_stage": "active"}
        say_json({"experiment": experiment})(sock, line, content)
    elif path.endswith(("runs/create", "runs/get")):
        say_json({"run": run})(sock, line, content)
    else:
        say_json({})(sock, line, content)


def _answer_artifacts(
    told: Mapping[str, object], asked: Mapping[str, object], sock: socket.socket, line: bytes, content: bytes
) -> None:
    if line.startswith(b"PUT"):
        say_json({})(sock, line, content)
    elif "path" in asked or line.split()[1].endswith(b"/artifacts"):
        say_json({"files": told.get("files", [])})(sock, line, content)
    elif told.get("content") == "endless":
        send_endlessly(sock, line, content)
    elif told.get("content") == "dripping":
        drip(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 1000)(sock, line, content)
    else:
        say(body(b"canary"))(sock, line, content)


def _describe_run(told: Mapping[str, object]) -> dict[str, object]:
    run_id = told.get("run_id", RUN_ID)
    info = {
        "run_id": run_id,
        "run_uuid": run_id,
        "experiment_id": told.get("experiment_id", "1"),
        "status": "RUNNING",
        "lifecycle_stage": "active",
        "artifact_uri": told.get("artifact_uri", f"mlflow-artifacts:/1/{RUN_ID}/artifacts"),
    }
    return {"info": info, "data": {}}


def _reset(sock: socket.socket, line: bytes, content: bytes) -> None:
    del line, content
    # Closing with bytes unread, or with this option, sends a reset.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


def _send_endless_header(sock: socket.socket, line: bytes, content: bytes) -> None:
    del line, content
    sock.sendall(b"HTTP/1.1 200 OK\r\nX: ")
    while True:
        sock.sendall(b"y" * (1 << 16))


def _redirect(where: str) -> bytes:
    return body(b"", f"Location: {where}", status="302 Found")


def _find_unfinished(room: Room, outcome: Outcome) -> str:
    state = json.loads((room.work / "run" / "status.json").read_text(encoding="utf-8"))["state"]
    if state != "finished":
        return f"the state of the run is {state}"
    return "" if "were not sent" in outcome.output else "it doesn't say that records were not sent"


def _find_canary(room: Room, outcome: Outcome) -> str:
    del outcome
    cache = room.home / ".cache"
    found = [path for path in room.root.rglob("canary*") if not path.is_relative_to(cache)]
    return f"written outside: {found}" if found or Path("/tmp/canary.txt").exists() else ""
