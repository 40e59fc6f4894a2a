"""What a run's report shows of its model: computed here, on held-out text, and handed on as plain data."""

import dataclasses
import itertools
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bertjax.config import Config
from bertjax.data.batching.batches import Batches
from bertjax.data.corpus.corpus import Corpus
from bertjax.data.prepare import prepare_held_out
from bertjax.data.statistics.frequencies import (
    CLASSES,
    guessing_accuracy,
    guessing_loss,
    label_counts,
    word_classes,
)
from bertjax.data.tokenizer.tokenizer import Tokenizer
from bertjax.errors import BertjaxError
from bertjax.evaluation.evaluate import evaluate_by_class, is_same, own_mesh
from bertjax.evaluation.judgement import as_learned
from bertjax.evaluation.learned import in_words
from bertjax.evaluation.senses import words_of_several_senses
from bertjax.hub.family import carrying_family
from bertjax.hub.folder import FAMILIES
from bertjax.inference.neighbours import cosines
from bertjax.models.bert import make_model, num_parameters
from bertjax.objectives.guesses import Guess, Look, Place, hide_words
from bertjax.parallel.sharding import rows_here
from bertjax.runs.checkpoints import reason_of
from bertjax.runs.folder import RunFolder
from bertjax.runs.metrics import figures
from bertjax.runs.parameters import load_params, num_saved
from bertjax.runs.report import (
    Attention,
    ClassFigures,
    Learned,
    Near,
    RunReport,
    Sentence,
    WordUses,
    check_runs,
    commands_of,
    commands_of_task,
    render_report,
)
from bertjax.storage.atomic import atomic_write

_logger = logging.getLogger(__name__)

HIDDEN = 20  # words in sentences of the held-out text
_TOKENS_BY_CLASS = 40_000  # of held-out batches, at most, but for one batch: a report must cost little beside its run
_NEAREST = 3
_FEWEST_SEEN, _MOST_SEEN = 8, 16  # tokens of the sentence whose attention is drawn


def show_learned(
    look: Look,
    hidden: Sequence[Place],
    guessed: Sequence[Sequence[Guess]],
    *,
    config: Config,
    held_out: Corpus,
    batches: Batches,
    counts_v: np.ndarray | None,
    evaluation: Mapping[str, Any],
) -> Learned:
    """Returns what the model makes of held-out text. All processes of a run take part.

    Args:
      look: with the run's model and its parameters.
      hidden: words that were hidden from it.
      guessed: what it guessed for each.
      held_out: the text.
      batches: of it.
      counts_v: how often each token is in the training text, int64 [v]; None where the run doesn't tell.
      evaluation: a line of metrics.jsonl.
    """
    tokenizer, max_length = look.tokenizer, config.data.max_length
    uses = words_of_several_senses(held_out, tokenizer, counts_v=counts_v, max_length=max_length)
    vectors_nd = look.vectors([use for of_word in uses.values() for use in of_word])
    ends = np.cumsum([len(of_word) for of_word in uses.values()])
    words = [
        _word_uses(word, of_word, vectors_nd[end - len(of_word) : end], tokenizer)
        for (word, of_word), end in zip(uses.items(), ends, strict=True)
    ]
    seen = _sentence_to_see(hidden)
    special = tokenizer.vocabulary
    attention = seen is not None and Attention(
        tokenizer.tokens([special.cls, *seen.tolist(), special.sep]), look.attention(seen)
    )
    classes, verdict, frequency_loss = [], [], None
    if counts_v is not None:
        classes = _by_class(look, config, batches, counts_v)
        labels_v = label_counts(batches.first_epoch(), len(counts_v))
        frequency_loss, accuracy = _by_frequency(counts_v, labels_v, tokenizer, config)
        verdict = _verdict(config, evaluation, frequency_loss, accuracy)
    return Learned(
        verdict,
        frequency_loss,
        classes,
        [
            Sentence(*in_words(place, tokenizer), [(word, probability) for word, probability in guesses])
            for place, guesses in zip(hidden, guessed, strict=True)
        ],
        words,
        attention or None,
    )


def _word_uses(word: str, uses: list[Place], vectors_nd: np.ndarray, tokenizer: Tokenizer) -> WordUses:
    """Shows the use whose nearest ones and furthest one are furthest apart."""
    near_nn = cosines(vectors_nd)
    apart_nn = np.where(np.eye(len(uses), dtype=bool), -np.inf, near_nn)
    nearest_nk = np.argsort(-apart_nn, axis=1)[:, :_NEAREST]
    contrasts_n = np.take_along_axis(near_nn, nearest_nk, axis=1).mean(axis=1) - near_nn.min(axis=1)
    one = int(contrasts_n.argmax())

    def near(other: int) -> Near:
        return Near(*in_words(uses[other], tokenizer), float(near_nn[one, other]))

    nearest = [near(other) for other in nearest_nk[one].tolist()]
    return WordUses(word, *in_words(uses[one], tokenizer), nearest, near(int(near_nn[one].argmin())), len(uses))


def _sentence_to_see(hidden: Sequence[Place]) -> np.ndarray | None:
    """The ids of a sentence of middling length, cut if need be."""
    fitting = [ids for ids, _ in hidden if _FEWEST_SEEN <= len(ids) <= _MOST_SEEN]
    if fitting:
        return max(fitting, key=len)
    return hidden[0].ids[:_MOST_SEEN] if hidden else None


def _by_class(look: Look, config: Config, batches: Batches, counts_v: np.ndarray) -> list[ClassFigures]:
    """Figures of all words and of each class, on the first batches, beside those of frequencies on the same words."""
    some = max(1, _TOKENS_BY_CLASS // (batches.num_rows * batches.row_length))
    rows = rows_here(batches.num_rows, look.mesh)
    first = itertools.islice(batches.first_epoch(rows.some), some)
    means, classes = evaluate_by_class(config, look.params, first, rows, look.mesh, counts_v, look.tokenizer)
    labels_v = label_counts(itertools.islice(batches.first_epoch(), some), len(counts_v))
    classes_v = word_classes(counts_v, look.tokenizer)
    mine = {"all": (int(labels_v.sum()), means["mlm_loss"], means["mlm_accuracy"])} | classes
    found = []
    for name, (predictions, loss, accuracy) in mine.items():
        of_class_v = labels_v if name == "all" else labels_v * (classes_v == CLASSES.index(name))
        by_frequency = _by_frequency(counts_v, of_class_v, look.tokenizer, config)
        found.append(ClassFigures(name, predictions, loss, accuracy, *by_frequency))
    return found


def _by_frequency(
    counts_v: np.ndarray, labels_v: np.ndarray, tokenizer: Tokenizer, config: Config
) -> tuple[float, float]:
    """Loss and accuracy of guessing the labels by how frequent words are in the training text."""
    vocabulary, predict_unk = tokenizer.vocabulary, config.data.predict_unk
    return (
        guessing_loss(counts_v, labels_v, vocabulary, predict_unk=predict_unk),
        guessing_accuracy(counts_v, labels_v, vocabulary, predict_unk=predict_unk),
    )


def _verdict(config: Config, evaluation: Mapping[str, Any], loss: float, accuracy: float) -> list[str]:
    """Sentences that need no knowledge of losses.

    Args:
      evaluation: a line of metrics.jsonl.
      loss: of guessing by frequency, and so is the accuracy.
    """
    if not evaluation:
        return ["It was not evaluated on held-out text."]
    mlm, *others = figures(evaluation, config.data.heads, prefix="held_out_")
    if mlm.loss is None:
        return ["Its losses are no longer numbers: it has diverged, and is of no use."]
    sentences = [
        f"Of the words hidden in text that it has not read it finds {mlm.accuracy:.1%}; who always guesses the most "
        f"frequent word finds {accuracy:.1%}."
    ]
    better = loss - mlm.loss
    beside = f"its loss is {mlm.loss:.3f}, where word frequencies alone give {loss:.3f}"
    if better > 0.01:
        sentences.append(
            f"It has learned from context: on average it holds the word that stands there {math.exp(better):.1f} times "
            f"as likely as word frequencies do ({beside})."
        )
    else:
        sentences.append(f"It has not learned more than how frequent words are: {beside}.")
    questions = {"NSP": "one follows the other", "SOP": "they stand in their order"}
    for name, _, share in others:
        if share is not None:
            what = questions.get(name, name)
            sentences.append(f"Of two sentences it tells in {share:.1%} of cases whether {what}; a coin does in 50%.")
    return sentences


def report_of(folder: RunFolder, config: Config, learned: Learned | None, why_not: str = "") -> RunReport:
    """Returns all that a report tells of a run.

    Args:
      config: the run's.
      why_not: why there is nothing learned to show, as a clause.
    """
    if (kind := config.task.kind) != "pretrain":
        ends = ("_loss", "held_out_")
        keys = {key for line in folder.metrics.read() for key in line if key.endswith(ends[0])}
        heads = {key.removesuffix(ends[0]): key.removesuffix(ends[0]) for key in sorted(keys) if ends[1] not in key}
        commands = commands_of_task(folder, kind)
        return RunReport(folder, config, heads, "examples", num_saved(folder, config), learned, why_not, commands)
    constant = config.optim.schedule == "constant" and config.data.mlm_probability_end is None
    try:
        carrying_family(FAMILIES, config.model)
        exports = True
    except BertjaxError:
        exports = False
    commands = commands_of(folder, constant=constant, exports=exports)
    parameters = num_parameters(config.model)
    return RunReport(folder, config, config.data.heads, config.data.sequences, parameters, learned, why_not, commands)


def write_report(folder: RunFolder, config: Config, learned: Learned | None) -> None:
    """Writes report.html of a run that has ended; where that fails, nothing of the run does, and a line says so."""
    try:
        page = render_report([report_of(folder, config, learned)])
        with atomic_write(folder.report) as file:
            file.write(page)
    except Exception as error:  # whatever it is: the run has trained
        again = f"'bertjax report {folder.path}' tries again"
        _logger.warning(f"{folder.report} cannot be written ({reason_of(error)}); {again}")


def report_runs(paths: Sequence[str | Path]) -> str:
    """Returns the page of one run or of several side by side, as their folders have them.

    Where a run's model or its held-out text is no longer to be had, the page says so and shows the rest.

    Raises:
      BertjaxError: one is no run's folder, or given twice, or what it holds cannot be read.
    """
    folders = [RunFolder(path) for path in paths]
    check_runs(folders)
    reports = []
    for folder, config in [(folder, folder.config()) for folder in folders]:
        try:
            reports.append(report_of(folder, config, _learned_of(folder, config)))
        except BertjaxError as error:
            _logger.warning(f"what {folder.path} has learned is not shown: {error}")
            reports.append(report_of(folder, config, None, str(error)))
    return render_report(reports)


def _learned_of(folder: RunFolder, config: Config) -> Learned:
    if config.task.kind != "pretrain":
        # With SciPy, which pretraining need not wait for.
        from bertjax.evaluation.task import evaluate_task

        return as_learned(evaluate_task(folder.path))
    tokenizer = folder.tokenizer()
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, fallback=None))
    mesh = own_mesh(config)
    params = load_params(folder, config, mesh)
    held_out, batches = prepare_held_out(config, tokenizer)
    if is_same(folder, config.data.eval_split, held_out) is False:
        raise BertjaxError(f"{held_out.name} is no longer the text that was held out from {folder.path}")
    model = make_model(config.model, config.train, learning=False)
    look = Look(model, params, mesh, tokenizer, max_length=config.data.max_length)
    hidden = hide_words(held_out, tokenizer, number=HIDDEN, max_length=config.data.max_length)
    return show_learned(
        look,
        hidden,
        look.guesses(hidden),
        config=config,
        held_out=held_out,
        batches=batches,
        counts_v=folder.word_counts(),
        evaluation=folder.metrics.evaluation(config.eval.best),
    )
