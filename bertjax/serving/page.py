"""A page on which the routes are tried in a browser; it loads nothing from elsewhere."""

import secrets
from pathlib import Path
from typing import Any

from bertjax.runs.pages import render
from bertjax.serving.models import Models, ServedEncoder, ServedHead


def page(models: Models, *, keys: bool) -> tuple[str, dict[str, str]]:
    """Returns the page, and the headers that let it do no more than it needs."""
    nonce = secrets.token_urlsafe(16)
    html = render(
        "try.html",
        folders=[Path(__file__).parent / "templates"],
        models=list(models.origins),
        examples=_examples(models),
        keys=keys,
        nonce=nonce,
    )
    policy = (
        f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'unsafe-inline'; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    headers = {
        "Content-Security-Policy": policy,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-store",
    }
    return html, headers


def _examples(models: Models) -> dict[str, Any]:
    """Returns a body for each route that a loaded model can answer."""
    examples: dict[str, Any] = {}
    for model in models.all:
        name, texts = {"model": model.name}, ["a crane is flying", "he just left"]
        if isinstance(model, ServedEncoder):
            mask = model.tokenizer.rules.special[-1]
            examples.setdefault("/v1/embeddings", {"input": texts, **name})
            examples.setdefault("/embed", {"inputs": texts, **name})
            compared = {"source_sentence": texts[0], "sentences": texts}
            examples.setdefault("/similarity", {"inputs": compared, **name})
            examples.setdefault("/embed_all", {"inputs": texts[0], **name})
            if model.words is not None:
                examples.setdefault("/fill_mask", {"inputs": f"a {mask} is flying", **name})
        elif isinstance(model, ServedHead):
            examples.setdefault("/predict", {"inputs": texts[0], **name})
            if model.of_number:
                examples.setdefault("/rerank", {"query": "which bird flies?", "texts": texts, **name})
        else:
            examples.setdefault("/tags", {"inputs": texts[0], **name})
        examples.setdefault("/tokenize", {"inputs": texts[0], **name})
    return examples
