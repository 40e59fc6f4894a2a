"""A run's learning in plain terms: beside word frequencies alone, and by words hidden from it."""

from collections.abc import Iterable, Iterator, Mapping

from bertjax.data.prepare import Prepared
from bertjax.data.statistics.frequencies import guessing_loss, label_counts, word_counts
from bertjax.data.tokenizer.tokenizer import Tokenizer
from bertjax.objectives.guesses import Guess, Place
from bertjax.runs.metrics import figures

_AROUND = 22  # characters shown on either side of a hidden word
_GUESSES = 3


def describe_held_out(prepared: Prepared, evaluation: Mapping[str, float]) -> str:
    """Tells the MLM loss beside that of guessing by frequency, on the same predictions, and the rest beside a coin.

    Args:
      evaluation: a line of metrics.jsonl.
    """
    config, tokenizer = prepared.config, prepared.tokenizer
    guessing = guessing_loss(
        word_counts(prepared.train, tokenizer.vocab_size),
        label_counts(prepared.held_out_batches.first_epoch(), tokenizer.vocab_size),
        tokenizer.vocabulary,
        predict_unk=config.data.predict_unk,
    )
    mlm, *others = figures(evaluation, config.data.heads, prefix="held_out_")
    parts = [f"MLM loss {mlm.loss:.2f}, where word frequencies alone give {guessing:.2f}"]
    parts += [f"{name} accuracy {accuracy:.1%}, where a coin gives 50%" for name, _, accuracy in others]
    return f"held out: {'; '.join(parts)}"


def describe_guesses(hidden: list[Place], guessed: list[list[Guess]], tokenizer: Tokenizer) -> list[str]:
    """Tells of each hidden word whether it was found, what stood around it, and the guesses, below a heading.

    Args:
      hidden: the words.
      guessed: for each the guesses, best first.
    """
    if not hidden:
        return []
    lines = [f"words hidden in sentences of the held-out text, and the model's {_GUESSES} likeliest guesses:"]
    around = [_around(place, tokenizer) for place in hidden]
    width = max(map(len, around), default=0)
    for (ids, place), text, guesses in zip(hidden, around, guessed, strict=True):
        found = "right" if guesses[0].word == tokenizer.words(ids)[place] else "wrong"
        words = "  ".join(f"{word} {probability:.0%}" for word, probability in guesses[:_GUESSES])
        lines.append(f"  {found}  {text:<{width}}  {words}")
    return lines


def _around(place: Place, tokenizer: Tokenizer) -> str:
    """The word and its surroundings: "... crane is [flying] over the ..."."""
    words, at = in_words(place, tokenizer)
    before, after = words[:at], words[at + 1 :]
    left = [*_that_fit(reversed(before))][::-1]
    right = [*_that_fit(after)]
    left = left if len(left) == len(before) else ["...", *left]
    right = right if len(right) == len(after) else [*right, "..."]
    return " ".join([*left, f"[{words[at]}]", *right])


def in_words(place: Place, tokenizer: Tokenizer) -> tuple[list[str], int]:
    """Returns the words of a sentence, put together of their pieces, and which of them the word is."""
    before, after = (tokenizer.text(ids).split() for ids in (place.ids[: place.place], place.ids[place.place + 1 :]))
    return [*before, *tokenizer.words(place.ids[place.place : place.place + 1]), *after], len(before)


def _that_fit(words: Iterable[str]) -> Iterator[str]:
    room = _AROUND
    for word in words:
        room -= len(word) + 1
        if room < 0:
            return
        yield word
