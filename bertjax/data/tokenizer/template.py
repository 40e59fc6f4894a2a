"""Templates: which special tokens stand around a text or a pair of texts, and which of it all is segment 1."""

from typing import Any, NamedTuple, TypeVar

from tokenizers import Tokenizer as Engine

from bertjax.errors import BertjaxError

T = TypeVar("T")
A, B = -1, -2  # places of the first text and of the second


class Frame(NamedTuple):
    """What stands where, in order."""

    places: tuple[int, ...]  # ids of special tokens, and A or B where a text goes
    num_first: int  # so many of the places are segment 0, all others segment 1

    @property
    def num_special(self) -> int:
        """Number of special tokens."""
        return sum(place >= 0 for place in self.places)


class Template(NamedTuple):
    """How texts become what a model reads."""

    single: Frame
    pair: Frame
    keep_end: bool = False  # of a text that is too long, instead of its beginning

    def shortened(self, words: list[T], length: int) -> list[T]:
        """Returns so many of a text's words."""
        return words[len(words) - length :] if self.keep_end else words[:length]


def berts_template(cls: int, sep: int) -> Template:
    """Returns BERT's: `<cls> A <sep>`, or `<cls> A <sep> B <sep>`, of which `B <sep>` is segment 1."""
    return Template(Frame((cls, A, sep), 3), Frame((cls, A, sep, B, sep), 3))


def robertas_template(cls: int, sep: int) -> Template:
    """Returns RoBERTa's: `<s> A </s>`, or `<s> A </s></s> B </s>`, without segments."""
    return Template(Frame((cls, A, sep), 3), Frame((cls, A, sep, sep, B, sep), 6))


def read_template(engine: Engine) -> Template:
    """Finds the template of an engine, whatever kind of post-processor makes it, by a look at what it does.

    Raises:
      BertjaxError: it repeats a text, or has other segments than 0 and after it 1.
    """

    def frame(text: str, pair: str | None = None) -> Frame:
        read, of_each = engine.encode(text, pair), {A: 0, B: 0}
        places: list[int] = []
        types: list[int] = []
        fields = (read.ids, read.special_tokens_mask, read.sequence_ids, read.type_ids)
        for number, special, of, segment in zip(*fields, strict=True):
            place = number if special else (A, B)[of or 0]
            if not special:
                of_each[place] += 1
                if places and places[-1] == place:  # a text may have several tokens
                    continue
            places.append(place)
            types.append(segment)
        tokens = len(engine.encode(text, add_special_tokens=False).ids)
        once = sorted(place for place in places if place < 0) == ([A] if pair is None else [B, A])
        if not once or of_each != {A: tokens, B: 0 if pair is None else tokens}:
            raise BertjaxError("its post-processor does not set each text once; only one that does can be read")
        num_first = types.count(0)
        if types != [0] * num_first + [1] * (len(places) - num_first):
            raise BertjaxError(f"its post-processor gives the segments {types}; only 0 and after it 1 can be read")
        return Frame(tuple(places), num_first)

    return Template(frame("x"), frame("x", "x"))


def post_processor(template: Template, names: dict[int, str]) -> dict[str, Any]:
    """Returns what makes a tokenizer.json set special tokens around texts by itself, by the name of each number."""

    def piece(place: int, segment: int) -> dict[str, Any]:
        if place < 0:
            return {"Sequence": {"id": "AB"[place == B], "type_id": segment}}
        return {"SpecialToken": {"id": names[place], "type_id": segment}}

    def pieces(frame: Frame) -> list[dict[str, Any]]:
        return [piece(place, int(number >= frame.num_first)) for number, place in enumerate(frame.places)]

    special = {place for frame in (template.single, template.pair) for place in frame.places if place >= 0}
    return {
        "type": "TemplateProcessing",
        "single": pieces(template.single),
        "pair": pieces(template.pair),
        "special_tokens": {
            names[place]: {"id": names[place], "ids": [place], "tokens": [names[place]]} for place in sorted(special)
        },
    }
