"""Tags: which scheme they follow, and the entities they mark, held to what seqeval finds in odd sequences."""

import json
from pathlib import Path

import pytest

from bertjax.data.tags import Tags, entities, learn_scheme, scheme_of

SEQEVAL = json.loads((Path(__file__).parents[1] / "reference" / "tags.json").read_text())


@pytest.mark.parametrize("scheme", SEQEVAL)
def test_entities_are_those_that_seqeval_finds(scheme: str) -> None:
    found = SEQEVAL[scheme]["found"]
    assert sum(map(len, (there for _, there in found))) > 30
    for tags, there in found:
        assert [list(one) for one in entities(tags, scheme)] == there, tags  # type: ignore[arg-type]


def test_a_scheme_is_told_by_its_prefixes_and_by_what_begins_entities() -> None:
    for tags, scheme in (
        ("B-x I-x O B-x", "IOB2"),
        ("B-x O", "IOB2"),
        ("O I-x I-x B-x I-y", "IOB1"),
        ("I-x O", "IOB1"),
        ("B-x I-x I-y B-x B-y", "IOB2"),  # with one that is wrong
        ("S-x B-y E-y O", "IOBES"),
        ("U-x B-y L-y O", "BILOU"),
        ("B-x L-x E-x", None),
        ("NN VB O", None),
        ("PER O", None),
        ("O O", None),
        ("B I O", None),
    ):
        assert learn_scheme([tags.split()]) == scheme, tags
    assert entities(["NN", "B-x"], None) == []
    assert scheme_of(["O", "B-x", "B-y", "I-x"]) == scheme_of(["B-y", "B-x", "I-y", "I-x"]) == "IOB2"
    assert scheme_of(["B-x", "I-x", "I-y", "O"]) == "IOB1" and scheme_of(["NN", "VB"]) is None


def test_pieces_inside_a_word_are_inside_its_entity() -> None:
    tags = Tags(("B-x", "B-y", "I-x", "O"), "IOB2")
    assert [tags.inside(name) for name in tags.names] == ["I-x", "B-y", "I-x", "O"]
    assert Tags(("B-x", "I-x"), None).inside("B-x") == "B-x"


def test_tags_are_kept_whole_and_others_are_not_read() -> None:
    tags = Tags(("B-Größe", "O"), "IOB2")
    assert Tags.from_json(tags.to_json().decode()) == tags
    for text in ("", "[]", "{}", '{"names": ["a"], "scheme": null}', '{"names": ["a", "b"], "scheme": "IOB3"}', "[1]"):
        with pytest.raises(ValueError):
            Tags.from_json(text)
