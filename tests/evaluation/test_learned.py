"""What a run says it has learned: the words it hid, and what it made of them."""

import dataclasses
import re
from collections.abc import Callable

import jax
import numpy as np
import pytest
from drawn_params import drawn_params

from bertjax.config import Config, Objective
from bertjax.data.prepare import prepare
from bertjax.data.tokenizer.rules import BERTS_SPECIAL_TOKENS, Rules
from bertjax.data.tokenizer.tokenizer import Tokenizer
from bertjax.evaluation.learned import describe_guesses, describe_held_out
from bertjax.models.bert import Bert
from bertjax.objectives.guesses import Guess, Look, Place, hide_words, whole_words
from bertjax.parallel.sharding import by_name, make_mesh
from bertjax.train.pretrain import pretrain

PIECES = Tokenizer.from_vocab(
    {
        token: number
        for number, token in enumerate([*BERTS_SPECIAL_TOKENS, "crane", "fly", "##ing", "##s", ".", "the", "over"])
    },
    Rules("wordpiece", special=BERTS_SPECIAL_TOKENS),
)
CRANE, FLY, ING, STOP, THE, OVER = 5, 6, 7, 9, 10, 11


def test_hidden_words_are_whole_and_always_the_same(tiny: Config) -> None:
    prepared = prepare(tiny)
    hidden = hide_words(prepared.held_out, prepared.tokenizer, number=5, max_length=24)
    again = hide_words(prepared.held_out, prepared.tokenizer, number=5, max_length=24)
    assert len(hidden) == 5 and len({place for _, place in hidden}) > 1
    for (ids, place), (same_ids, same_place) in zip(hidden, again, strict=True):
        assert place == same_place and ids.tolist() == same_ids.tolist() and 6 <= len(ids) <= 22
    sentence = np.array([THE, CRANE, FLY, ING, 1, OVER, STOP])
    assert whole_words(sentence, PIECES) == [0, 1, 5]


def test_guesses_do_not_see_what_is_hidden_and_are_the_same_on_any_mesh(
    tiny: Config, devices: Callable[[int], None]
) -> None:
    devices(8)
    prepared = prepare(tiny)
    hidden = hide_words(prepared.held_out, prepared.tokenizer, number=5, max_length=24)
    model = Bert(prepared.config.model)
    params = drawn_params(model)

    def guessed(hidden: list[Place], *sizes: int) -> list[list[Guess]]:
        mesh = make_mesh(*sizes)
        placed = jax.device_put(params, by_name(params, mesh))
        return Look(model, placed, mesh, prepared.tokenizer, max_length=24).guesses(hidden)

    ours = guessed(hidden)
    others = [Place(np.where(np.arange(len(ids)) == place, 5, ids), place) for ids, place in hidden]
    assert guessed(others) == ours and [len(guesses) for guesses in ours] == [5] * 5
    elsewhere = [Place(np.roll(ids, 1), place) for ids, place in hidden]
    assert guessed(elsewhere) != ours
    for one, other in zip(ours, guessed(hidden, 2, 2, 2), strict=True):
        assert [word for word, _ in one] == [word for word, _ in other]
        assert [share for _, share in one] == pytest.approx([share for _, share in other], rel=1e-5)
        assert [share for _, share in one] == sorted((share for _, share in one), reverse=True)


def test_guesses_are_marked_and_lie_beneath_each_other() -> None:
    hidden = [Place(np.array([THE, CRANE, FLY, ING, OVER, *[THE] * 9]), 1), Place(np.array([OVER, THE, STOP]), 0)]
    guessed = [[Guess("crane", 0.5), Guess("the", 0.25)], [Guess("the", 0.51), Guess("over", 0.4)]]
    assert describe_guesses(hidden, guessed, PIECES)[1:] == [
        "  right  the [crane] flying over the the ...  crane 50%  the 25%",
        "  wrong  [over] the .                         the 51%  over 40%",
    ]


@pytest.mark.parametrize("objective, other", [("mlm+nsp", "NSP"), ("mlm+sop", "SOP"), ("mlm", None)])
def test_a_run_ends_with_what_it_has_learned(
    tiny: Config, objective: Objective, other: str | None, capsys: pytest.CaptureFixture, devices: Callable
) -> None:
    devices(2)
    optim = dataclasses.replace(tiny.optim, learning_rate=0.03)
    train = dataclasses.replace(tiny.train, steps=30)
    config = dataclasses.replace(
        tiny, data=dataclasses.replace(tiny.data, objective=objective), optim=optim, train=train
    )
    pretrain(config)
    out = capsys.readouterr().out
    learned, guessing = re.search(r"\nheld out: MLM loss (.*), where word frequencies alone give (.{4})", out).groups()
    assert float(learned) < float(guessing) < np.log(17)
    assert (f"; {other} accuracy " in out) == (other is not None) == ("where a coin gives 50%" in out)
    lines = out.splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("words hidden in"))
    guesses = lines[first + 1 : first + 6]
    assert all(re.match(r"  (right|wrong)  .*\[\w+\].*  \w+ \d+%  ", line) for line in guesses)
    assert any(line.startswith("  right") for line in guesses) and lines[first + 6].startswith("losses drawn in")
    assert max(map(len, lines[first : first + 6])) < 100


def test_text_of_short_sentences_has_nothing_to_hide(tiny: Config) -> None:
    prepared = prepare(dataclasses.replace(tiny, data=dataclasses.replace(tiny.data, max_length=7)))
    assert hide_words(prepared.held_out, prepared.tokenizer, number=5, max_length=7) == []
    look = Look(Bert(prepared.config.model), {}, make_mesh(), prepared.tokenizer, max_length=7)
    assert look.guesses([]) == [] and look.vectors([]).shape == (0, 16)
    assert describe_guesses([], [], prepared.tokenizer) == []


def test_guessing_is_on_the_very_predictions_of_the_evaluation(tiny: Config) -> None:
    prepared = prepare(tiny)
    line = describe_held_out(prepared, {"held_out_mlm_loss": 1.0, "held_out_mlm_accuracy": 0.5})
    guessing = float(line.split()[-1])
    labels = np.concatenate([b.mlm_labels_bp[b.mlm_weights_bp > 0] for b in prepared.held_out_batches.first_epoch()])
    counts = np.bincount(prepared.train.ids, minlength=17)[5:] + 0.5
    assert guessing == pytest.approx(-np.log(counts / counts.sum())[labels - 5].mean(), abs=0.006)
