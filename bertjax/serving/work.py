"""What a request asks of the devices, made of its body, and how its answer is made of what they compute."""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from bertjax.data.reader import TokenIds, TooLong
from bertjax.data.tokenizer.template import A
from bertjax.errors import BertjaxError
from bertjax.inference.engine import unit
from bertjax.inference.plan import Plan
from bertjax.serving.errors import empty, too_large, wrong
from bertjax.serving.models import Models, Served, ServedEncoder
from bertjax.serving.programs import Piece, Program, Results, VectorProgram

_CHARACTERS_A_TOKEN = 64  # of pairs and of texts whose words are told, which are read to their end


class Limits(NamedTuple):
    """What requests may ask for, and how long they may take to come."""

    max_inputs: int = 2048  # texts of one
    max_body: int = 4 * 2**20  # bytes of one
    max_bodies: int = 64 * 2**20  # bytes of all that are being read
    max_waiting_tokens: int = 2**17  # of all
    max_numbers: int = 2**21  # of an answer
    max_answers: int = 256 * 2**20  # bytes of all long answers that clients have not fetched yet
    max_connections: int = 1000
    seconds: float = 30.0  # in which one must have come whole, and in which each part of its answer must have gone


class Work(NamedTuple):
    """Texts for the devices, and what to do with their results."""

    model: Served
    program: Program | None  # None where there is nothing to compute
    pieces: Sequence[Piece]
    answer: Callable[[Results], Any]  # what JSON is made of
    num_numbers: int = 0  # in the answer

    @property
    def num_tokens(self) -> int:
        """Tokens of all texts, special ones included."""
        return sum(piece.size for piece in self.pieces)


Prepare = Callable[[Models, Limits, Any], Work]  # of a request's body, as its schema has it


def as_list(inputs: Any, param: str, limits: Limits) -> list[Any]:
    """Returns inputs as a list, of one where there is one by itself.

    Raises:
      Refused: there is none, or there are too many.
    """
    several = inputs if isinstance(inputs, list) else [inputs]
    if not several:
        raise empty(param)
    if len(several) > limits.max_inputs:
        raise too_large(
            f"{param} has {len(several):,} texts; give {limits.max_inputs:,} at most, and others in requests of theirs",
            "too_many_inputs",
            param,
        )
    return several


def check_not_empty(texts: Sequence[str], param: str, *, several: bool) -> None:
    """Raises Refused where a text is empty."""
    for number, text in enumerate(texts):
        if not text:
            raise empty(f"{param}[{number}]" if several else param)


def vectors_of(
    models: Models,
    limits: Limits,
    inputs: Any,
    answer: Callable[[np.ndarray, int], Any],
    *,
    param: str,
    model: str | None,
    truncate: bool | None,
    prompt_name: str | None = None,
    normalize: bool | None = None,
    dimensions: int | None = None,
) -> Work:
    """Returns the work of making vectors of texts or of token ids.

    Args:
      answer: makes the answer of the vectors, float32 [n, size], and of the number of tokens.
      param: the field that the inputs stand in.
      normalize: make their length 1; None does what the folder says.
      dimensions: numbers of each that are kept; the length is 1 again then, if it was to be before.

    Raises:
      Refused: something cannot be read so.
    """
    served = models.encoder(model)
    program, plan, pieces = _read(served, limits, inputs, param, bool(truncate), prompt_name)
    if dimensions is not None and not 1 <= dimensions <= program.size:
        raise wrong(f"dimensions={dimensions} is impossible for vectors of {program.size} numbers", "dimensions")
    normalize = plan.recipe.normalize if normalize is None else normalize
    num_tokens = sum(piece.size for piece in pieces)

    def answered(results: Results) -> Any:
        vectors_nd = np.stack(results)[:, :dimensions]
        return answer(unit(vectors_nd) if normalize else vectors_nd, num_tokens)

    return checked(Work(served, program, pieces, answered, len(pieces) * program.size), limits)


def token_vectors_of(
    models: Models, limits: Limits, inputs: Any, *, model: str | None, truncate: bool | None, prompt_name: str | None
) -> Work:
    """Returns the work of making vectors of all tokens of texts, each [t, hidden]."""
    served = models.encoder(model)
    _, _, pieces = _read(served, limits, inputs, "inputs", bool(truncate), prompt_name)
    num_numbers = sum(piece.size for piece in pieces) * served.engine.config.hidden_size

    def answered(results: Results) -> Any:
        return [of_text.tolist() for of_text in results]

    return checked(Work(served, served.token_vectors, pieces, answered, num_numbers), limits)


def check_length(texts: Iterable[str], served: Served, param: str) -> None:
    """Raises Refused where a text is so long that to read it would take more than a model is worth."""
    most = _CHARACTERS_A_TOKEN * served.max_length
    if any(len(text) > most for text in texts):
        raise too_large(
            f"{param} has a text of more than {most:,} characters; give shorter ones", "text_too_long", param
        )


def checked(work: Work, limits: Limits) -> Work:
    """Returns work that is not too much. Raises Refused where it is."""
    if work.num_tokens > limits.max_waiting_tokens:
        raise too_large(
            f"the request has {work.num_tokens:,} tokens; give {limits.max_waiting_tokens:,} at most", "too_many_tokens"
        )
    if work.num_numbers > limits.max_numbers:
        raise too_large(
            f"the answer would have {work.num_numbers:,} numbers; give less text, for {limits.max_numbers:,} at most",
            "answer_too_large",
        )
    return work


@contextlib.contextmanager
def refusing(param: str) -> Iterator[None]:
    """Turns what is wrong with a text into an error of the request."""
    try:
        yield
    except TooLong as error:
        raise too_large(str(error), "text_too_long", param) from None
    except BertjaxError as error:
        raise wrong(str(error), param) from None


def namer(param: str, several: bool) -> Callable[[int], str]:
    """Returns what an error calls a text of a field, by its number."""
    return lambda number: f"{param}[{number}]" if several else param


def _read(
    served: ServedEncoder, limits: Limits, inputs: Any, param: str, truncate: bool, prompt_name: str | None
) -> tuple[VectorProgram, Plan, list[Piece]]:
    """Returns the program for texts or token ids, its plan, and what it reads."""
    if isinstance(inputs, list) and inputs and isinstance(inputs[0], int):
        inputs = [inputs]  # the ids of one text
        if not all(isinstance(one, int) for one in inputs[0]):
            raise wrong(f"{param} has numbers and others; give token ids alone, or texts", param)
    several = as_list(inputs, param, limits)
    name = namer(param, isinstance(inputs, list))
    if all(isinstance(one, str) for one in several):
        check_not_empty(several, param, several=isinstance(inputs, list))
        program, plan = served.vectors(truncate, prompt_name)
        with refusing(param):
            read = plan.read([(text, None) for text in several], name)
        return program, plan, [Piece(text) for text in read]
    if not all(isinstance(one, list) for one in several):
        raise wrong(f"{param} has texts and numbers or lists; give texts, or lists of token ids", param)
    if prompt_name is not None:
        raise wrong("prompt_name stands before texts, and token ids are given; leave it out", "prompt_name")
    program, plan = served.plain()
    read = [_framed(served, ids, truncate, name(number), param) for number, ids in enumerate(several)]
    return program, plan, [Piece(text) for text in read]


def _framed(served: ServedEncoder, ids: list[int], truncate: bool, name: str, param: str) -> TokenIds:
    """Returns token ids with the model's special ones around them, unless they are there already."""
    if not ids:
        raise empty(name)
    size = served.tokenizer.vocab_size
    if not 0 <= min(ids) <= max(ids) < size:
        bad = str(next(one for one in ids if not 0 <= one < size))[:20]
        raise wrong(f"{name} has the token {bad}; {served.name} has 0 to {size - 1:,}", param)
    template = served.tokenizer.template
    places = list(template.single.places)
    at = places.index(A)
    before, after = places[:at], places[at + 1 :]
    end = len(ids) - len(after)
    if end >= at and ids[:at] == before and ids[end:] == after:
        ids = ids[at:end]
    room = served.max_length - len(before) - len(after)
    if len(ids) > room:
        if not truncate:
            limit = f"only {room} fit beside special ones in the {served.max_length} that {served.name} reads"
            raise too_large(
                f"{name} has {len(ids)} tokens, but {limit}; give less, or truncate", "text_too_long", param
            )
        ids = template.shortened(ids, room)
    return TokenIds([*before, *ids, *after], len(before) + len(ids) + len(after))
