"""Held-out figures of answers: exact match and F1 by SQuAD's rules, and the threshold from which on there is none.

Letters: q questions, n windows of their contexts, m tokens in all.
"""

import functools
import re
import string
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from jax.sharding import Mesh

from bertjax.config import Config, MeshConfig
from bertjax.data.batching.answers import AnswerBatches
from bertjax.data.prepare_answering import held_out_questions
from bertjax.data.questions import Question, Spans
from bertjax.data.windows import AnswerExamples, make_windows
from bertjax.evaluation.evaluate import own_mesh
from bertjax.evaluation.judgement import Figure, Judgement, hardest, mean_of, shown
from bertjax.evaluation.outputs import outputs_of
from bertjax.inference.spans import FoundSpan, find_span
from bertjax.models.bert import make_model
from bertjax.models.tagger import TokenClassifier
from bertjax.objectives.objective import Params
from bertjax.objectives.tagging import token_logits
from bertjax.runs.folder import RunFolder
from bertjax.runs.parameters import load_params
from bertjax.runs.report import Table

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_FAR = 1e6  # a margin that no logits come to
_WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)


def make_answerer(config: Config, mesh: Mesh, *, learning: bool) -> TokenClassifier:
    """Returns the model that tells where answers begin and end, for a mesh."""
    bert = make_model(config.model, config.train, learning=learning).clone(mesh=mesh)
    return TokenClassifier(bert, Spans().num_outputs)


def judge_answerer(
    config: Config,
    examples: AnswerExamples,
    batches: AnswerBatches,
    questions: Sequence[Question],
    params: Params,
    mesh: Mesh,
    *,
    threshold: float | None = None,
    fits: bool = True,
) -> Judgement:
    """Returns the figures of parameters on questions.

    Args:
      batches: of the examples.
      questions: those of the examples.
      params: over the mesh.
      threshold, fits: as of `judge_answers`.
    """
    tell = functools.partial(token_logits, make_answerer(config, mesh, learning=False))
    logits_m2 = outputs_of(tell, params, batches, mesh, places=batches.tokens_at, count=len(examples.ids))
    of_windows = iter(np.split(logits_m2, examples.starts_n[1:-1]))
    found = [
        find_span(read, [next(of_windows) for _ in read.windows], max_answer=config.task.max_answer)
        for read in examples.read
    ]
    return judge_answers(examples.name, questions, found, threshold=threshold, fits=fits)


def judge_answers(
    name: str,
    questions: Sequence[Question],
    found: Sequence[FoundSpan],
    *,
    threshold: float | None = None,
    fits: bool = False,
) -> Judgement:
    """Returns figures of answers that were found, with intervals over questions.

    A question's figures are the best over its right answers, and "no answer" is right where it has none.

    Args:
      name: of the questions.
      threshold: by how much "none" is to be ahead, to be told; None: it never is.
      fits: take the threshold with the best F1 in place of this one, where there are questions without an answer.
    """
    spans = [one.context[span.start : span.end] for one, span in zip(questions, found, strict=True)]
    spans_q2 = np.array([exact_and_f1(text, question) for text, question in zip(spans, questions, strict=True)])
    nones_q2 = np.array([exact_and_f1("", question) for question in questions])
    without_q = np.array([not question.answers for question in questions])
    if fits := fits and bool(without_q.any()):
        margins_q = np.array([np.inf if span.is_none(None) else span.margin for span in found])
        threshold = fit_threshold(margins_q, spans_q2[:, 1], nones_q2[:, 1])
    none_q = np.array([span.is_none(threshold) for span in found])
    figures_q2 = np.where(none_q[:, None], nones_q2, spans_q2)
    kinds = {"with an answer": ~without_q, "without one": without_q}
    figures = {kind: _figures(figures_q2[some_q]) for kind, some_q in kinds.items() if some_q.any()}
    counts = {kind: int(some_q.sum()) for kind, some_q in kinds.items()}
    table = [
        f"  {counts[kind]:,} {kind}: " + ", ".join(f"{name} {shown(figure)}" for name, figure in of_kind.items())
        for kind, of_kind in figures.items()
    ]
    told = {
        kind: {"count": counts[kind]} | {name: figure._asdict() for name, figure in of_kind.items()}
        for kind, of_kind in figures.items()
    }
    return Judgement(
        name,
        len(questions),
        _figures(figures_q2),
        _note(nones_q2[:, 1], threshold, fits=fits) if without_q.any() else "",
        table if len(table) > 1 else [],
        {"threshold": threshold, "of_kind": told},
        [_hardest(questions, found, none_q, figures_q2[:, 1])],
    )


def _figures(figures_q2: np.ndarray) -> dict[str, Figure]:
    return {"F1": mean_of(figures_q2[:, 1]), "exact match": mean_of(figures_q2[:, 0])}


def _note(nones_q: np.ndarray, threshold: float | None, *, fits: bool) -> str:
    how = "is never told" if threshold is None else f"is told where it is ahead by more than {threshold:.3f}"
    fitted = ", which suits these best" if fits else ""
    return f"no answer to any has F1 {nones_q.mean():.4f}, and {how}{fitted}"


def _hardest(questions: Sequence[Question], found: Sequence[FoundSpan], none_q: np.ndarray, f1_q: np.ndarray) -> Table:
    """Returns a table of the questions whose answer is wrong although it is told with the highest probability."""
    told_q = np.array(
        [span.none_probability if none else span.probability for span, none in zip(found, none_q, strict=True)]
    )

    def row(number: int) -> list[str]:
        one, span = questions[number], found[number]
        right = " / ".join(dict.fromkeys(answer.text for answer in one.answers)) or "-"
        told = "-" if none_q[number] else one.context[span.start : span.end]
        return [one.question, right, told, one.context]

    what = "Those whose answer is wrong, the most sure of it first; - is no answer. Often the answers are worth a look."
    columns = ["Question", "Right", "Told", "Context"]
    return hardest(what, columns, np.where(f1_q < 1, (1 - f1_q) * told_q, -np.inf), row)


def exact_and_f1(told: str, question: Question) -> tuple[float, float]:
    """Returns whether an answer, or none, is right word by word, and its F1, by the best right one.

    They are those of SQuAD 2.0 (Rajpurkar et al. 2018, arXiv:1806.03822), of words without case, punctuation and
    articles. Right answers of none but these are none.
    """
    right = [words for answer in question.answers if (words := normal_words(answer.text))] or [[]]
    told_words = normal_words(told)
    return float(told_words in right), max(_f1(told_words, words) for words in right)


def normal_words(text: str) -> list[str]:
    """Returns the words of an answer that count: in lower case, without ASCII punctuation, then without articles."""
    return _ARTICLES.sub(" ", text.lower().translate(_WITHOUT_PUNCTUATION)).split()


def _f1(told: list[str], right: list[str]) -> float:
    if not told or not right:
        return float(told == right)
    return 2 * (Counter(told) & Counter(right)).total() / (len(told) + len(right))


def fit_threshold(margins_q: np.ndarray, spans_q: np.ndarray, nones_q: np.ndarray) -> float:
    """Returns the threshold with the best figure on average; "none" is told where its margin is above it.

    Args:
      margins_q: by how much "none" is ahead of a question's best span; infinity where it has no span.
      spans_q: the figure of the span.
      nones_q: that of none.
    """
    order = np.argsort(margins_q, kind="stable")
    margins_q = margins_q[order].clip(-_FAR, _FAR)
    gains = np.cumsum(spans_q[order] - nones_q[order])  # by telling the spans of the first, one by one
    totals = np.concatenate(([0.0], np.where(np.append(np.diff(margins_q) > 0, True), gains, -np.inf)))
    told = int(totals.argmax())
    around = np.concatenate(([margins_q[0] - 1], margins_q, [margins_q[-1] + 1]))
    return float((around[told] + around[told + 1]) / 2)


def evaluate_answering(run: RunFolder, path: str | None, mesh: MeshConfig | None) -> Judgement:
    """Judges a run on the questions that it held out, or on others; see `evaluate_task`."""
    config = run.config()
    devices = own_mesh(config, mesh)
    questions, name = held_out_questions(config, path)
    how: Any = {"max_length": config.data.max_length, "stride": config.task.stride, "name": name}
    examples = make_windows(questions, run.tokenizer(), **how)
    batch_size, row_length = config.train.batch_size, config.data.row_length
    batches = AnswerBatches(examples, batch_size=batch_size, row_length=row_length, seed=config.seed)
    params, threshold = load_params(run, config, devices), run.fitted("threshold")
    return judge_answerer(config, examples, batches, questions, params, devices, threshold=threshold, fits=False)
