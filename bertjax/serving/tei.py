"""Routes as clients of text-embeddings-inference know them (github.com/huggingface/text-embeddings-inference)."""

from collections.abc import Callable
from typing import Any

import numpy as np

from bertjax.data.reader import Item
from bertjax.data.tokenizer.template import A
from bertjax.serving.errors import Refused, empty, too_large, wrong
from bertjax.serving.models import Models, Served, ServedEncoder, ServedHead, ServedTagger
from bertjax.serving.programs import Piece, Results
from bertjax.serving.schemas import (
    EmbedAllRequest,
    EmbedRequest,
    PredictRequest,
    RerankRequest,
    SimilarityParameters,
    SimilarityRequest,
    TokenizeRequest,
)
from bertjax.serving.work import (
    Limits,
    Work,
    as_list,
    check_length,
    check_not_empty,
    checked,
    namer,
    refusing,
    token_vectors_of,
    vectors_of,
)


def embed(models: Models, limits: Limits, asked: EmbedRequest) -> Work:
    """Returns the work of POST /embed."""
    check_direction(models.encoder(asked.model), asked.truncate, asked.truncation_direction)
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


def embed_all(models: Models, limits: Limits, asked: EmbedAllRequest) -> Work:
    """Returns the work of POST /embed_all."""
    check_direction(models.encoder(asked.model), asked.truncate, asked.truncation_direction)
    return token_vectors_of(
        models, limits, asked.inputs, model=asked.model, truncate=asked.truncate, prompt_name=asked.prompt_name
    )


def similarity(models: Models, limits: Limits, asked: SimilarityRequest) -> Work:
    """Returns the work of POST /similarity."""
    param, how = "inputs.sentences", asked.parameters or SimilarityParameters()
    if not asked.inputs.source_sentence:
        raise empty("inputs.source_sentence")
    sentences = as_list(asked.inputs.sentences, param, limits)
    check_not_empty(sentences, param, several=True)
    check_direction(models.encoder(asked.model), how.truncate, how.truncation_direction)
    return vectors_of(
        models,
        limits._replace(max_inputs=limits.max_inputs + 1),
        [asked.inputs.source_sentence, *sentences],
        lambda vectors_nd, _: (vectors_nd[1:] @ vectors_nd[0]).tolist(),
        param="inputs",
        model=asked.model,
        truncate=how.truncate,
        prompt_name=how.prompt_name,
        normalize=True,
    )


def predict(models: Models, limits: Limits, asked: PredictRequest) -> Work:
    """Returns the work of POST /predict."""
    inputs, alone = asked.inputs, isinstance(asked.inputs, str)
    if not isinstance(inputs, str) and inputs and isinstance(inputs[0], str):  # a pair, or one text in a list
        inputs, alone = [inputs], True  # type: ignore[list-item]
    if isinstance(inputs, str):
        inputs = [[inputs]]
    items = [_item(one, number) for number, one in enumerate(as_list(inputs, "inputs", limits))]
    served = models.head(asked.model)

    def answer(scores_nc: np.ndarray) -> Any:
        order_nc = np.argsort(-scores_nc, axis=1, kind="stable")
        told = [
            [{"score": float(of_text[at]), "label": served.labels[at]} for at in order]
            for of_text, order in zip(scores_nc, order_nc, strict=True)
        ]
        return told[0] if alone else told

    return _of_head(served, limits, items, "inputs", asked, answer)


def predict_as_list(models: Models, limits: Limits, asked: PredictRequest) -> Work:
    """Returns the work of POST / to a model with labels: a list of lists even of one text."""
    work = predict(models, limits, asked)

    def answered(results: Results) -> Any:
        told = work.answer(results)
        return told if isinstance(told[0], list) else [told]

    return work._replace(answer=answered)


def rerank(models: Models, limits: Limits, asked: RerankRequest) -> Work:
    """Returns the work of POST /rerank."""
    if not asked.query:
        raise empty("query")
    texts = as_list(asked.texts, "texts", limits)
    check_not_empty(texts, "texts", several=True)
    served = models.head(asked.model)
    if not served.of_number:
        raise Refused(424, f"{served.name} tells labels and ranks nothing; ask another model", "wrong_model")
    if len(asked.query) * len(texts) > limits.max_body:  # it is read with each of them
        raise too_large("the query is too long for so many texts; give fewer", "too_many_inputs", "texts")

    def answer(scores_nc: np.ndarray) -> Any:
        order = np.argsort(-scores_nc[:, 0], kind="stable").tolist()
        ranks = [{"index": at, "score": float(scores_nc[at, 0])} for at in order]
        return (
            [rank | {"text": texts[at]} for rank, at in zip(ranks, order, strict=True)] if asked.return_text else ranks
        )

    return _of_head(served, limits, [(asked.query, text) for text in texts], "texts", asked, answer)


def tokenize(models: Models, limits: Limits, asked: TokenizeRequest) -> Work:
    """Returns the work of POST /tokenize."""
    served, tokenizer = models.get(asked.model), models.get(asked.model).tokenizer
    texts = as_list(asked.inputs, "inputs", limits)
    if sum(map(len, texts)) > 8 * limits.max_waiting_tokens:
        raise too_large(
            f"inputs have more than {8 * limits.max_waiting_tokens:,} characters", "text_too_long", "inputs"
        )
    prompt = ""
    if asked.prompt_name is not None:
        prompt = models.encoder(asked.model).vectors(True, asked.prompt_name)[1].prompt

    def told(text: str) -> list[dict[str, Any]]:
        tokens = []
        for place in tokenizer.template.single.places if asked.add_special_tokens else (A,):
            if place != A:
                (name,) = tokenizer.tokens([place])
                tokens.append({"id": place, "text": name, "special": True, "start": None, "stop": None})
                continue
            for number, start, stop in tokenizer.token_spans(text):
                piece = tokenizer.tokens([number])[0] if start is None else text[start:stop]
                tokens.append({"id": number, "text": piece, "special": False, "start": start, "stop": stop})
        return tokens

    with refusing("inputs"):
        answer = [told(prompt + text) for text in texts]
    return Work(served, None, [], lambda _: answer)


def check_direction(served: Served, truncate: bool | None, direction: str | None) -> None:
    """Raises Refused where the other end of a text is to be cut off than the model's."""
    cut = "left" if served.tokenizer.template.keep_end else "right"
    if truncate and direction is not None and direction.lower() != cut:
        raise wrong(f"truncation_direction={direction}: {served.name} is cut at the {cut}", "truncation_direction")


def _item(one: str | list[str], number: int) -> Item:
    if isinstance(one, str):
        raise wrong("inputs mix texts and lists; give a text, a pair, or a list of lists of one or two", "inputs")
    if not 1 <= len(one) <= 2:
        raise wrong(f"inputs[{number}] has {len(one)} texts; give one, or two for a pair", "inputs")
    check_not_empty(one, f"inputs[{number}]", several=True)
    return one[0], one[1] if len(one) == 2 else None


def _of_head(
    served: ServedHead,
    limits: Limits,
    items: list[Item],
    param: str,
    asked: PredictRequest | RerankRequest,
    answer: Callable[[np.ndarray], Any],
) -> Work:
    """Returns the work of telling numbers of texts and pairs."""
    check_direction(served, asked.truncate, asked.truncation_direction)
    check_length((text for item in items for text in item if text is not None), served, param)
    with refusing(param):
        read = served.head.reader(truncate=bool(asked.truncate)).read_all(items, namer(param, len(items) > 1))
    pieces = [Piece(text) for text in read]

    def answered(results: Results) -> Any:
        return answer(served.scores(np.stack(results), asked.raw_scores))

    return checked(Work(served, served.logits, pieces, answered, len(pieces) * len(served.labels)), limits)


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
