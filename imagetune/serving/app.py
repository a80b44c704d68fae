"""The HTTP interface: which path answers what."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from imagetune.serving.admission import HEALTH, Admission
from imagetune.serving.bodies import receive_uploads
from imagetune.serving.openapi import build_openapi
from imagetune.serving.page import build_page_routes
from imagetune.serving.replies import RequestError, build_error_reply, build_predictions_reply
from imagetune.serving.service import Service

_CODES = {404: "not_found", 405: "method_not_allowed"}


def build_app(service: Service) -> Starlette:
    """Return the application of a server whose processes are running."""
    routes = [*_build_computing_routes(service), *_build_describing_routes(service), *build_page_routes()]
    paths = [route.path for route in routes if isinstance(route, Route)]
    return Starlette(
        routes=routes,
        middleware=[
            Middleware(
                Admission,
                token=service.settings.token,
                hosts=service.settings.answered_hosts,
                metrics=service.metrics,
                paths=paths,
            )
        ],
        exception_handlers={
            RequestError: _answer_refusal,
            HTTPException: _answer_http_error,
            ClientDisconnect: _answer_nobody,
            Exception: _answer_bug,
        },
    )


def _build_computing_routes(service: Service) -> list[BaseRoute]:
    """Return the paths that compute something of images."""

    async def predict(request: Request) -> Response:
        async with receive_uploads(request, service.settings.limits, service.buffer) as uploads:
            _log(request, images=len(uploads), bytes=sum(len(data) for _, data in uploads))
            predictions = await service.compute("predict", uploads, request)
        for prediction in predictions:
            service.metrics.images.labels("unreadable" if prediction["error"] else "predicted").inc()
        _observe(service, predictions)
        return build_predictions_reply(service.model, predictions)

    async def explain(request: Request) -> Response:
        async with receive_uploads(request, service.settings.limits, service.buffer) as uploads:
            if len(uploads) > 1:
                raise RequestError(413, "too_many_images", "One image is explained at a time.")
            (explained,) = await service.compute("explain", uploads, request)
        if problem := explained.get("error"):
            raise RequestError(problem["status"], problem["code"], problem["message"])
        return JSONResponse(explained)

    return [
        Route("/v1/predict", predict, methods=["POST"]),
        Route("/v1/explain", explain, methods=["POST"]),
    ]


def _build_describing_routes(service: Service) -> list[BaseRoute]:
    """Return the paths that say what the server and its model are, and how they are."""

    async def labels(_: Request) -> Response:
        return JSONResponse({"task": service.model["task"], "labels": service.model["labels"]})

    async def model(_: Request) -> Response:
        drift = {} if service.drift is None else {"drift": service.drift.describe()}
        return JSONResponse({**service.model, **drift})

    async def health(_: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def ready(_: Request) -> Response:
        if service.pool.is_ready and not service.draining:
            return JSONResponse({"status": "ready"})
        what = "The server is stopping." if service.draining else "The model is being loaded."
        raise RequestError(503, "not_ready", what, {"Retry-After": "5"})

    async def metrics(_: Request) -> Response:
        return Response(generate_latest(service.metrics.registry), media_type=CONTENT_TYPE_LATEST)

    async def openapi(_: Request) -> Response:
        return JSONResponse(build_openapi(service.model, service.settings.limits))

    return [
        Route("/v1/labels", labels),
        Route("/v1/model", model),
        Route(HEALTH, health),
        Route("/readyz", ready),
        Route("/metrics", metrics),
        Route("/openapi.json", openapi),
    ]


def _observe(service: Service, predictions: list[dict[str, Any]]) -> None:
    if service.drift is not None:
        service.drift.observe(predictions)


def _log(request: Request, **values: Any) -> None:
    request.state.log = values


async def _answer_refusal(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestError)  # noqa: S101 - as Starlette has looked it up
    return build_error_reply(error)


async def _answer_http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - likewise
    message = "There is nothing at this path." if error.status_code == 404 else f"{error.detail}."
    headers: Mapping[str, str] = error.headers or {}
    code = _CODES.get(error.status_code, "refused")
    return build_error_reply(RequestError(error.status_code, code, message, headers))


async def _answer_nobody(_: Request, __: Exception) -> Response:
    return Response(status_code=499)


async def _answer_bug(_: Request, __: Exception) -> Response:
    return build_error_reply(RequestError(500, "internal", "The server has failed; its log says why."))
