"""The OpenAPI document of a server, generated from the same table as the routes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pydantic.json_schema import models_json_schema

from llamacpu.server.errors import ApiError

if TYPE_CHECKING:
    from llamacpu.server.bodies import Body
    from llamacpu.server.endpoints import Endpoint

__all__ = ["document"]

_REFERENCE = "#/components/schemas/{model}"
_WORDS = {
    400: "Invalid request; `param` names the field.",
    401: "The API key is missing or invalid.",
    403: "The Host or Origin header is not allowed.",
    404: "The model does not exist.",
    408: "The request body did not arrive in time.",
    413: "The request body is too large.",
    415: "Compressed request bodies are not supported.",
    429: "The queue is full; Retry-After says when to retry.",
    500: "Internal error.",
    501: "Not supported by this server, or an optional dependency is not installed.",
    503: "The server is loading, out of memory or shutting down; Retry-After says when to retry.",
}
_ALWAYS = (401, 403)
_OF_A_BODY = (400, 404, 408, 413, 415, 429, 500, 501, 503)


def document(endpoints: Sequence[Endpoint], version: str, keys: bool) -> dict[str, Any]:
    """Return the document; keys: whether the server requires API keys."""
    bodies: list[type[Body]] = list(dict.fromkeys(e.body for e in endpoints if e.body is not None))
    _, schemas = models_json_schema([(body, "validation") for body in bodies], ref_template=_REFERENCE)
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in endpoints:
        path = re.sub(r":\w+}", "}", endpoint.path)
        paths.setdefault(path, {})[endpoint.method.lower()] = _operation(endpoint)
    found: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": "llamacpu", "version": version, "license": {"name": "MIT", "identifier": "MIT"}},
        "paths": paths,
        "components": {"schemas": schemas.get("$defs", {})},
    }
    if keys:
        found["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        found["security"] = [{"key": []}]
    return found


def _operation(endpoint: Endpoint) -> dict[str, Any]:
    content: dict[str, Any] = {endpoint.media_type: {} if endpoint.response is None else {"schema": endpoint.response}}
    if endpoint.stream is not None:
        # The format of events and lines, and of the last one, differs from API to API.
        content[endpoint.stream] = {}
    statuses = {*_ALWAYS, *endpoint.statuses, *(_OF_A_BODY if endpoint.body is not None else ())}
    if endpoint.parameters:
        statuses |= {404}
    example = endpoint.error(ApiError(400, "top_p: input should be less than or equal to 1", "top_p"))
    errors = {"application/json": {"schema": _schema_of(example), "example": example}}
    found: dict[str, Any] = {
        "summary": endpoint.summary,
        "tags": [endpoint.tag],
        "operationId": f"{endpoint.method.lower()}{re.sub('[^a-z0-9]+', '_', endpoint.path.lower()).rstrip('_')}",
        "responses": {
            "200": {"description": "Success.", "content": content},
            **{str(status): {"description": _WORDS[status], "content": errors} for status in sorted(statuses)},
        },
    }
    if endpoint.body is not None:
        reference = {"$ref": _REFERENCE.format(model=endpoint.body.__name__)}
        required = any(field.is_required() for field in endpoint.body.model_fields.values())
        found["requestBody"] = {"required": required, "content": {"application/json": {"schema": reference}}}
    if endpoint.parameters:
        found["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in endpoint.parameters
        ]
    return found


def _schema_of(value: Any) -> dict[str, Any]:
    """The schema of an error object, derived from an example."""
    if isinstance(value, dict):
        return {
            "type": "object",
            "properties": {key: _schema_of(inner) for key, inner in value.items()},
            "required": list(value),
        }
    return {} if value is None or isinstance(value, (int, float)) else {"type": ["string", "null"]}
