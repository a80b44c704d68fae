"""The description of the HTTP interface in OpenAPI, with examples of the served model's own labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from imagetune.serving.settings import Limits

_STRING = {"type": "string"}
_NUMBER = {"type": "number"}


def build_openapi(model: Mapping[str, Any], limits: Limits) -> dict[str, Any]:
    """Return the OpenAPI document of a server.

    Args:
        model: What the server says of its model.
        limits: What requests may take.
    """
    return {
        "openapi": "3.1.0",
        "info": {"title": f"imagetune: {model['id']}", "version": model["version"]},
        "paths": {
            "/v1/predict": {"post": _describe_predict(model, limits)},
            "/v1/explain": {"post": _describe_explain(model, limits)},
            "/v1/labels": {"get": _describe_get("The labels, in the order of the model's outputs.")},
            "/v1/model": {"get": _describe_get("The model's card, its metrics with intervals and its settings.")},
            "/healthz": {"get": _describe_get("Whether the server runs; needs no token.")},
            "/readyz": {"get": _describe_get("Whether the model is loaded; 503 while it isn't.")},
            "/metrics": {"get": {"summary": "Metrics for Prometheus.", "responses": {"200": {"description": "Text."}}}},
        },
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": {"Error": _ERROR, "Prediction": _PREDICTION},
        },
        "security": [{}, {"token": []}],
    }


def build_example(model: Mapping[str, Any]) -> dict[str, Any]:
    """Return a reply of `/v1/predict` as an example: of the model's own labels, with invented numbers."""
    labels = list(model["labels"])
    found: dict[str, Any] = {"name": "image.jpg", "label": labels[0], "probability": None, "probabilities": {}}
    if model["task"] == "regression":
        found |= {"label": "4.2", "value": 4.2, "interval": [3.1, 5.3]}
    else:
        rest = round(0.1 / max(len(labels) - 1, 1), 4)
        found |= {"probability": 0.9, "probabilities": dict.fromkeys(labels, rest) | {labels[0]: 0.9}}
    found |= {"prediction_set": None if model["task"] == "regression" else labels[:1]}
    found |= {"out_of_distribution": False, "out_of_distribution_score": 11.5, "error": None}
    return {"model": {"id": model["id"], "version": model["version"]}, "predictions": [found]}


_ERROR: dict[str, Any] = {
    "type": "object",
    "properties": {"error": {"type": "object", "properties": {"code": _STRING, "message": _STRING}}},
}
_PREDICTION: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": _STRING,
        "label": {"type": ["string", "null"]},
        "probability": {"type": ["number", "null"]},
        "probabilities": {"type": "object", "additionalProperties": _NUMBER},
        "prediction_set": {"type": ["array", "null"], "items": _STRING},
        "out_of_distribution": {"type": ["boolean", "null"]},
        "out_of_distribution_score": {"type": ["number", "null"]},
        "value": _NUMBER,
        "interval": {"type": ["array", "null"], "items": _NUMBER},
        "error": {"type": ["object", "null"], "properties": {"code": _STRING, "message": _STRING}},
    },
}


def _describe_predict(model: Mapping[str, Any], limits: Limits) -> dict[str, Any]:
    file = {"type": "string", "format": "binary"}
    many = {"type": "array", "items": file, "maxItems": limits.files}
    single = {"type": "object", "required": ["base64"], "properties": {"name": _STRING, "base64": _STRING}}
    body = {"type": "object", "required": ["images"], "properties": {"images": {"type": "array", "items": single}}}
    reply = {
        "type": "object",
        "properties": {
            "model": {"type": "object", "properties": {"id": _STRING, "version": _STRING}},
            "predictions": {"type": "array", "items": {"$ref": "#/components/schemas/Prediction"}},
        },
    }
    pixel = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
    return {
        "summary": f"Predict up to {limits.files} images, of at most {limits.body_bytes:,} bytes together.",
        "requestBody": {
            "required": True,
            "content": {
                "multipart/form-data": {"schema": {"type": "object", "properties": {"images": many}}},
                "application/json": {
                    "schema": body,
                    "example": {"images": [{"name": "image.png", "base64": pixel}]},
                },
                "image/*": {"schema": file},
            },
        },
        "responses": {
            "200": {
                "description": "A prediction or an error for each image, in their order.",
                "content": {"application/json": {"schema": reply, "example": build_example(model)}},
            },
            **{status: _describe_error(text) for status, text in _REFUSALS.items()},
        },
    }


def _describe_explain(model: Mapping[str, Any], limits: Limits) -> dict[str, Any]:
    predict = _describe_predict(model, limits)
    return {
        "summary": "Explain the prediction for one image: which regions speak for it.",
        "requestBody": predict["requestBody"],
        "responses": {
            **predict["responses"],
            "200": {
                "description": "What is explained, and images as data: addresses.",
                "content": {"application/json": {"schema": _EXPLANATION}},
            },
            "501": _describe_error("An export has no explanations."),
        },
    }


_EXPLANATION: dict[str, Any] = {
    "type": "object",
    "properties": {
        "target": _STRING,
        "saliency": _STRING,
        "found": {"type": "boolean"},
        "nearest": {
            "type": ["object", "null"],
            "properties": {"label": _STRING, "similarity": _NUMBER, "thumbnail": _STRING},
        },
        "error": {"type": "null"},
    },
}
_REFUSALS = {
    "400": "There is no image in the request, or the body can't be taken apart.",
    "401": "The token is missing or wrong.",
    "408": "The body came too slowly.",
    "413": "The body, the number of images or an image is too large.",
    "415": "The body is of a type that isn't read.",
    "422": "The only image can't be read.",
    "503": "Too many images wait; Retry-After says when to come again.",
}


def _describe_get(summary: str) -> dict[str, Any]:
    return {
        "summary": summary,
        "responses": {"200": {"description": "JSON.", "content": {"application/json": {"schema": {"type": "object"}}}}},
    }


def _describe_error(text: str) -> dict[str, Any]:
    return {
        "description": text,
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
    }
