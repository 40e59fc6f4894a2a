"""Routes as clients of text-embeddings-inference know them (github.com/huggingface/text-embeddings-inference)."""

from typing import Any

from bertjax.serving.errors import Refused
from bertjax.serving.models import Models, Served, ServedEncoder, ServedHead, ServedTagger
from bertjax.serving.schemas import EmbedRequest
from bertjax.serving.work import Limits, Work, vectors_of


def embed(models: Models, limits: Limits, asked: EmbedRequest) -> Work:
    """Returns the work of POST /embed."""
    return vectors_of(
        models,
        limits,
        asked.inputs,
        lambda vectors_nd, _: vectors_nd.tolist(),
        param="inputs",
        model=asked.model,
        truncate=asked.truncate,
        prompt_name=asked.prompt_name,
        normalize=asked.normalize is not False,
        dimensions=asked.dimensions,
    )


def info(model: Served, limits: Limits, version: str) -> dict[str, Any]:
    """Returns the answer to GET /info."""
    largest = model.shapes.all[-1]
    return {
        "model_id": model.name,
        "model_sha": None,
        "model_dtype": model.origin.precision,
        "served_model_name": model.name,
        "model_type": _type(model),
        "max_concurrent_requests": limits.max_connections,
        "max_input_length": model.max_length,
        "max_batch_tokens": largest.num_rows * largest.length,
        "max_batch_requests": None,
        "max_client_batch_size": limits.max_inputs,
        "auto_truncate": False,
        "tokenization_workers": 1,
        "version": version,
        "sha": None,
        "docker_label": None,
    }


def error_body(error: Refused) -> tuple[int, dict[str, Any]]:
    """Returns the status and the body that these clients understand."""
    kinds = {424: "Backend", 429: "Overloaded", 500: "Backend", 503: "Unhealthy"}
    kind = "Empty" if error.code == "empty" else kinds.get(error.status, "Validation")
    return error.status, {"error": error.message, "error_type": kind}


def _type(model: Served) -> dict[str, Any]:
    if isinstance(model, ServedEncoder):
        return {"embedding": {"pooling": "+".join(model.encoder.sentence.pooling)}}
    labels = model.labels if isinstance(model, ServedHead | ServedTagger) else []
    numbered = {
        "id2label": {str(number): label for number, label in enumerate(labels)},
        "label2id": {label: number for number, label in enumerate(labels)},
    }
    kind = "reranker" if isinstance(model, ServedHead) and model.of_number else "classifier"
    return {kind: numbered}
