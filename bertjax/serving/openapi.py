"""What /openapi.json tells: every route, and the fields of its body, as they are checked."""

from collections.abc import Sequence
from typing import Any

from bertjax.serving.extra import needed

with needed():
    import msgspec

_REFUSALS = {
    "400": "no JSON, or nothing in it",
    "404": "no such model",
    "413": "too many or too long texts",
    "422": "a field has a wrong type or value",
    "424": "the model cannot do that",
    "429": "too much waits; see Retry-After",
    "503": "the models are being loaded",
}


def describe(operations: Sequence[Any], gets: Sequence[tuple[str, str]], version: str, *, keys: bool) -> dict[str, Any]:
    """Returns the description of the interface, in OpenAPI 3.1.

    Args:
      operations: each with a path, the schema of its body, and a function whose docstring tells what it does.
      gets: paths that are read by GET, and what they tell.
      version: of this package.
      keys: whether requests need one.
    """
    schemas, parts = msgspec.json.schema_components(
        [operation.schema for operation in operations], ref_template="#/components/schemas/{name}"
    )
    paths: dict[str, Any] = {
        path: {"get": {"summary": summary, "responses": {"200": {"description": summary}}}} for path, summary in gets
    }
    for operation, schema in zip(operations, schemas, strict=True):
        content = {"application/json": {"schema": schema}}
        said = {status: {"description": why} for status, why in _REFUSALS.items()}
        paths.setdefault(operation.path, {})["post"] = {
            "summary": (operation.schema.__doc__ or "").strip(),
            "requestBody": {"required": True, "content": content},
            "responses": {"200": {"description": "the answer", "content": {"application/json": {}}}, **said},
        }
    components: dict[str, Any] = {"schemas": parts}
    described: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": "bertjax serve", "version": version},
        "paths": paths,
        "components": components,
    }
    if keys:
        components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        described["security"] = [{"key": []}]
    return described
