"""What is answered: errors, and documents as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.responses import JSONResponse


class RequestError(Exception):
    """A request that is refused.

    Args:
        status: The HTTP status.
        code: A word by which programs tell the reason.
        message: A sentence for people; without a path of this machine.
        headers: Headers of the reply.
    """

    def __init__(self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.headers = status, code, message, dict(headers or {})


def build_error_reply(error: RequestError) -> JSONResponse:
    """Return the reply to a request that is refused: ``{"error": {"code", "message"}}``."""
    return JSONResponse(
        {"error": {"code": error.code, "message": error.message}}, status_code=error.status, headers=error.headers
    )


def build_predictions_reply(model: Mapping[str, Any], predictions: list[dict[str, Any]]) -> JSONResponse:
    """Return the predictions of a request's images, in their order, and which model they are from.

    Raises:
        RequestError: There is a single image, and it can't be predicted.
    """
    if len(predictions) == 1 and (problem := predictions[0]["error"]):
        raise RequestError(problem["status"], problem["code"], problem["message"])
    shown = [{**found, "error": found["error"] and _describe(found["error"])} for found in predictions]
    return JSONResponse({"model": {"id": model["id"], "version": model["version"]}, "predictions": shown})


def _describe(problem: Mapping[str, Any]) -> dict[str, Any]:
    return {"code": problem["code"], "message": problem["message"]}
