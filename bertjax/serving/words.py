"""Routes about words: guesses for masks and tags, in the shapes of Hugging Face's inference clients."""

from typing import Any

from bertjax.inference.engine import MASKS_PER_CALL
from bertjax.inference.tagger import Tagged
from bertjax.serving.errors import Refused, too_large
from bertjax.serving.models import Models
from bertjax.serving.programs import Piece, Results
from bertjax.serving.schemas import FillMaskRequest, TagsRequest
from bertjax.serving.work import Limits, Work, as_list, check_length, check_not_empty, checked, namer, refusing


def fill_mask(models: Models, limits: Limits, asked: FillMaskRequest) -> Work:
    """Returns the work of POST /fill_mask.

    The answer has, for a text with one mask, its guesses, best first; with several a list of these for each; for a list
    of texts a list of all that.
    """
    served, several = models.encoder(asked.model), isinstance(asked.inputs, list)
    if served.words is None:
        raise Refused(424, f"{served.name} has no head or mask to guess words by; ask another model", "wrong_model")
    texts = as_list(asked.inputs, "inputs", limits)
    check_not_empty(texts, "inputs", several=several)
    check_length(texts, served, "inputs")
    pieces: list[Piece] = []
    owners: list[int] = []  # the text of each piece
    for number, text in enumerate(texts):
        with refusing(namer("inputs", several)(number)):
            ids, masks = served.encoder.read_masks(text)
        for first in range(0, len(masks), MASKS_PER_CALL):
            pieces.append(Piece(ids, tuple(masks[first : first + MASKS_PER_CALL])))
            owners.append(number)
    tokens = served.tokenizer.tokens

    def answered(results: Results) -> Any:
        of_texts: list[list[Any]] = [[] for _ in texts]
        for number, best_p2n in zip(owners, results, strict=True):
            for ids_n, scores_n in best_p2n[:, :, : asked.top_k]:
                chosen = ids_n.astype(int).tolist()
                guesses = zip(chosen, tokens(chosen), scores_n.tolist(), strict=True)
                told = [{"score": score, "token": token, "token_str": word} for token, word, score in guesses]
                of_texts[number].append(told)
        told_of = [of_text[0] if len(of_text) == 1 else of_text for of_text in of_texts]
        return told_of if several else told_of[0]

    num_masks = sum(len(piece.masks) for piece in pieces)
    return checked(Work(served, served.words, pieces, answered, 20 * num_masks * asked.top_k), limits)


def tags(models: Models, limits: Limits, asked: TagsRequest) -> Work:
    """Returns the work of POST /tags: of each text its words, their tags, and the entities that these mark."""
    return _tags(models, limits, asked, _words)


def entities(models: Models, limits: Limits, asked: TagsRequest) -> Work:
    """Returns the work of POST / to a model that tags: the entities alone, as clients of Hugging Face know them."""
    return _tags(models, limits, asked, _entities)


def _tags(models: Models, limits: Limits, asked: TagsRequest, tell: Any) -> Work:
    served, several = models.tagger(asked.model), isinstance(asked.inputs, list)
    texts = as_list(asked.inputs, "inputs", limits)
    check_not_empty(texts, "inputs", several=several)
    check_length((text if isinstance(text, str) else " ".join(text) for text in texts), served, "inputs")
    with refusing("inputs"):
        read = served.tagger.read(texts)
    if not asked.truncate and (cut := [number for number, one in enumerate(read) if one.num_cut]):
        name, most = namer("inputs", several)(cut[0]), served.max_length
        message = f"{name} has words beyond the {most} tokens that are read, as in training; give less, or truncate"
        raise too_large(message, "text_too_long", "inputs")

    def answered(results: Results) -> Any:
        logits = iter(results)
        told = [tell(served.tagger.tagged(one, None if one.ids is None else next(logits))) for one in read]
        return told if several else told[0]

    pieces = [Piece(one.ids) for one in read if one.ids is not None]
    return checked(Work(served, served.logits, pieces, answered, 20 * sum(len(one.words) for one in read)), limits)


def _words(tagged: Tagged) -> dict[str, Any]:
    words = zip(tagged.words, tagged.spans, tagged.tags, tagged.probabilities, strict=True)
    return {
        "words": [
            {"word": word, "start": start, "end": end, "tag": tag, "score": probability}
            for word, (start, end), tag, probability in words
        ],
        "entities": _entities(tagged),
    }


def _entities(tagged: Tagged) -> list[dict[str, Any]]:
    return [
        {"entity_group": one.type, "score": one.score, "word": one.text, "start": one.start, "end": one.end}
        for one in tagged.entities
    ]
