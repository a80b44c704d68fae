"""The command `imagetune serve`: predictions over HTTP."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

from imagetune.cli.options import run_argument
from imagetune.cli.render.lines import print_progress


def _limit(name: str, default: int, most: int, text: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return an option for a whole number from 1 to ``most``."""
    return click.option(name, default=default, show_default=True, type=click.IntRange(1, most), help=text)


@click.command(epilog="Example: imagetune serve runs/clipart-20261121-101500-3f2a --port 8000")
@run_argument
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8000, show_default=True, type=click.IntRange(0, 65535), help="Port; 0 for a free one.")
@click.option(
    "--host-name",
    "host_names",
    multiple=True,
    metavar="NAME",
    help="A name under which a proxy on this machine hands on requests; repeatable; not needed with --token-file.",
)
@click.option("--token-file", type=click.Path(path_type=Path), help="A file with the bearer token of all requests.")
@click.option(
    "--workers",
    type=click.IntRange(1, 64),
    help="Processes that hold the model; by default one a core, up to 4; one for an export or on a GPU.",
)
@_limit("--max-batch", 16, 256, "Most images that go through the model at a time.")
@_limit("--max-queue", 256, 100_000, "Most images that wait; more are refused with 503.")
@_limit("--max-images", 32, 10_000, "Most images in a request; more are refused with 413.")
@_limit("--max-body", 32, 1024, "Largest request in MiB; larger ones are refused with 413.")
@_limit("--max-seconds", 30, 3600, "Time in which a request's images must have come; slower ones are refused with 408.")
@click.option(
    "--training-images",
    is_flag=True,
    help="Show the nearest training image beside explanations, to all who may ask; the images must still be there.",
)
def command(
    run: str,
    host: str,
    port: int,
    host_names: tuple[str, ...],
    token_file: Path | None,
    workers: int | None,
    training_images: bool,
    **limits: int,
) -> None:
    """Serve the model of RUN, a run or an export, over HTTP.

    At SIGTERM or Ctrl-C the server answers what has come and ends.

    POST /v1/predict takes images as multipart files (field "images"), as base64 in JSON, or one as the body. GET
    /v1/labels, /v1/model, /openapi.json, /metrics (Prometheus), /healthz and /readyz answer, too. Images are decoded
    as in training and as `imagetune predict` does.

    Without --host nobody but this machine reaches it. Standard output gets a line of JSON for each request.
    """
    from imagetune.serving.settings import Limits, ServerSettings, require_packages

    require_packages()
    from imagetune.commands.serve import read_token, serve

    # One request as large as may be must find room in an empty queue.
    queued = max(limits["max_queue"], limits["max_images"])
    requests = Limits(
        body_bytes=limits["max_body"] << 20,
        files=limits["max_images"],
        queued_images=queued,
        body_seconds=limits["max_seconds"],
    )
    token = None if token_file is None else read_token(token_file)
    settings = ServerSettings(host, port, token, workers, limits["max_batch"], requests, training_images, host_names)
    serve(run, settings, say=print_progress, on_ready=lambda address: print_progress("serving", f"{run} at {address}"))
