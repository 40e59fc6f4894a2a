"""Tags of words: their numbers, the scheme by which they mark entities, and the entities that they mark."""

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple

Scheme = Literal["IOB1", "IOB2", "IOBES", "BILOU"]
OUTSIDE = "O"
_MARKED = re.compile(r"[BIESLU]-.+|O")


class Tags(NamedTuple):
    """The tags that words have one of: the number of a tag is its place."""

    names: tuple[str, ...]
    scheme: Scheme | None  # None where they mark no entities, as parts of speech don't

    @property
    def num_outputs(self) -> int:
        """Numbers that a model tells of a token."""
        return len(self.names)

    def inside(self, name: str) -> str:
        """Returns the tag of the pieces of a word but its first: where there is one, that of being inside an entity."""
        inside = f"I-{name[2:]}"
        return inside if self.scheme and name.startswith("B-") and inside in self.names else name

    def to_json(self) -> bytes:
        """Returns them as a run keeps them."""
        return (json.dumps(self._asdict(), ensure_ascii=False, indent=1) + "\n").encode()

    @classmethod
    def from_json(cls, text: str) -> "Tags":
        """Returns what `to_json` was given. Raises ValueError where it is no such text."""
        try:
            kept: Any = json.loads(text)
            names, scheme = tuple(kept["names"]), kept["scheme"]
        except (KeyError, TypeError) as error:
            raise ValueError(f"no tags: {error!r}") from None
        if not all(isinstance(name, str) for name in names) or len(names) < 2 or scheme not in (None, *_SCHEMES):
            raise ValueError("no list of tags")
        return cls(names, scheme)


_SCHEMES = ("IOB1", "IOB2", "IOBES", "BILOU")


class Entity(NamedTuple):
    """Words that are one thing."""

    type: str
    start: int  # number of the first word, from 0
    end: int  # of the first one after it


def learn_scheme(sentences: Iterable[Sequence[str]]) -> Scheme | None:
    """Returns the scheme that tags follow, None where there is no B-, I- and so on before all but "O".

    IOB1 has B- only between entities of one type that touch, so that more entities begin with I- than with B-.
    """
    prefixes: set[str] = set()
    begins = {"B": 0, "I": 0}
    for tags in sentences:
        before = OUTSIDE
        for tag in tags:
            if not _MARKED.fullmatch(tag):
                return None
            prefix, _, kind = tag.partition("-")
            prefixes.add(prefix)
            begins["B"] += prefix == "B"
            begins["I"] += prefix == "I" and kind != before.partition("-")[2]
            before = tag
    if prefixes == {OUTSIDE}:
        return None
    if prefixes <= set("BIO"):
        return "IOB1" if begins["I"] > begins["B"] else "IOB2"
    return "IOBES" if prefixes <= set("BIESO") else "BILOU" if prefixes <= set("BILUO") else None


def scheme_of(names: Iterable[str]) -> Scheme | None:
    """Returns the scheme that tags seem to follow by their names alone: IOB1 where more have I- than B-."""
    return learn_scheme([name] for name in names)


def entities(tags: Sequence[str], scheme: Scheme | None) -> list[Entity]:
    """Returns the entities that the tags of a sentence mark, by seqeval's strict rules: what breaks them is none.

    Of IOB1, which has no strict ones that hold what it is used for, by the rules of CoNLL's own script, which are
    seqeval's default: any I- after something else begins an entity.
    """
    found: list[Entity] = []
    if scheme is None:
        return found
    has_ends = scheme in ("IOBES", "BILOU")
    begun: int | None = None
    kind = ""
    for place, tag in enumerate((*tags, OUTSIDE)):
        prefix, _, own = tag.partition("-")
        if begun is not None and not (own == kind and prefix in ("I", "E", "L")):
            if not has_ends:
                found.append(Entity(kind, begun, place))
            begun = None
        if begun is None and (prefix in ("B", "S", "U") or (prefix == "I" and scheme == "IOB1")):
            begun, kind = place, own
        if has_ends and begun is not None and prefix in ("E", "L", "S", "U"):
            found.append(Entity(kind, begun, place + 1))
            begun = None
    return found
