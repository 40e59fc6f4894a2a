"""Routes as clients of OpenAI's interface know them (platform.openai.com/docs/api-reference/embeddings)."""

import base64
from collections.abc import Sequence
from typing import Any

import numpy as np

from bertjax.serving.errors import Refused
from bertjax.serving.models import Models, Served
from bertjax.serving.schemas import EmbeddingsRequest
from bertjax.serving.work import Limits, Work, vectors_of


def embeddings(models: Models, limits: Limits, asked: EmbeddingsRequest) -> Work:
    """Returns the work of POST /v1/embeddings."""
    name = models.get(asked.model).name

    def answer(vectors_nd: np.ndarray, num_tokens: int) -> dict[str, Any]:
        as_text = asked.encoding_format == "base64"
        encoded: Sequence[Any] = vectors_nd.tolist() if not as_text else [_base64(vector) for vector in vectors_nd]
        return {
            "object": "list",
            "data": [
                {"object": "embedding", "index": number, "embedding": vector} for number, vector in enumerate(encoded)
            ],
            "model": name,
            "usage": {"prompt_tokens": num_tokens, "total_tokens": num_tokens},
        }

    return vectors_of(
        models,
        limits,
        asked.input,
        answer,
        param="input",
        model=name,
        truncate=asked.truncate,
        normalize=True,
        dimensions=asked.dimensions,
    )


def list_models(models: Models) -> dict[str, Any]:
    """Returns the answer to GET /v1/models."""
    return {"object": "list", "data": [describe(model) for model in models.all]}


def describe(model: Served) -> dict[str, Any]:
    """Returns what is told of a model."""
    return {"id": model.name, "object": "model", "created": model.created, "owned_by": "bertjax"}


def error_body(error: Refused) -> tuple[int, dict[str, Any]]:
    """Returns the status and the body that these clients understand."""
    status = 400 if error.status in (413, 422, 424) else error.status
    kind = {401: "authentication_error", 429: "rate_limit_error"}.get(
        status, "server_error" if status >= 500 else "invalid_request_error"
    )
    return status, {"error": {"message": error.message, "type": kind, "param": error.param, "code": error.code}}


def _base64(vector_d: np.ndarray) -> str:
    return base64.b64encode(vector_d.astype("<f4").tobytes()).decode("ascii")
