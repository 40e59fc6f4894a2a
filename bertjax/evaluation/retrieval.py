"""Held-out figures of embeddings: whether a text finds the one that belongs to it, or cosines follow the scores.

Letters: n examples, r texts of one, m texts, c candidates, e numbers of a vector.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh

from bertjax.config import Config, MeshConfig
from bertjax.data.batching.tuples import TupleBatch, TupleBatches
from bertjax.data.held_out import held_out_side
from bertjax.data.tuples import TupleRow, Tuples, make_tuples, read_tuples, split_tuples
from bertjax.evaluation.evaluate import own_mesh
from bertjax.evaluation.judgement import Figure, Judgement, hardest, mean_of, resampled, shown
from bertjax.evaluation.scoring import correlations
from bertjax.hub.sentence_transformers import SentenceSettings, read_settings
from bertjax.models.bert import make_model
from bertjax.models.sentence_encoder import SentenceEncoder
from bertjax.objectives.contrastive import HEAD, Contrast, metrics_of_vectors, tuple_vectors
from bertjax.objectives.metrics import Metrics, RunningMeans
from bertjax.objectives.objective import Params
from bertjax.parallel.sharding import by_name, by_rows, place_rows, replicated, rows_here
from bertjax.runs.folder import RunFolder
from bertjax.runs.parameters import load_params
from bertjax.runs.report import Table

_TOP = 10  # candidates that a reader looks at
_MOST = 4096  # texts whose nearest others a report looks for where nothing tells which belong together
_AT_ONCE = 1024  # texts that are compared with all candidates together
_OTHERS = 16  # texts that each is held against for uniformity


class Embedded(NamedTuple):
    """What a model makes of examples."""

    vectors_me: np.ndarray  # float32, of each text
    loss: float  # in batches


def make_sentence_encoder(config: Config, sentence: SentenceSettings, mesh: Mesh, *, learning: bool) -> SentenceEncoder:
    """Returns the model that makes vectors of texts, for a mesh."""
    bert = make_model(config.model, config.train, learning=learning).clone(mesh=mesh)
    return SentenceEncoder(bert, sentence.pooling)


def contrast_of(config: Config) -> Contrast:
    """Returns what the task section says that vectors are to be like."""
    task = config.task
    return Contrast(
        task.loss == "cosent", task.temperature, task.symmetric, tuple(sorted(task.matryoshka or (), reverse=True))
    )


def embed(
    config: Config, sentence: SentenceSettings, batches: TupleBatches, examples: Tuples, params: Params, mesh: Mesh
) -> Embedded:
    """Returns the vectors of the examples' texts, and the mean loss of their batches.

    Args:
      batches: of the examples.
      params: over the mesh.
    """
    model, contrast = make_sentence_encoder(config, sentence, mesh, learning=False), contrast_of(config)
    parts = config.train.parts

    def told(params: Params, batch: TupleBatch) -> tuple[Array, list[Metrics]]:
        vectors_nre = tuple_vectors(model, params, batch, parts=parts)
        sizes = contrast.sizes or (None,)
        return vectors_nre, [metrics_of_vectors(vectors_nre[..., :size], batch, contrast) for size in sizes]

    program = jax.jit(told, in_shardings=(by_name(params, mesh), by_rows(mesh)), out_shardings=replicated(mesh))
    vectors_me = np.zeros((len(examples.lengths_m), model.vector_size), np.float32)
    rows, running = rows_here(batches.num_rows, mesh), [RunningMeans() for _ in contrast.sizes or (None,)]
    for step in range(batches.steps_in_epoch):
        vectors_nre, metrics = jax.device_get(
            program(params, place_rows(batches.batch_at(step, rows.some), rows, mesh))
        )
        texts_nr = examples.texts_nr[batches.numbers_at(step)]
        vectors_me[texts_nr[texts_nr >= 0]] = vectors_nre[: len(texts_nr)][texts_nr >= 0]
        for means, of_size in zip(running, metrics, strict=True):
            means.add(of_size)
    return Embedded(vectors_me, sum(means.means()[f"{HEAD}_loss"] for means in running))


def judge(
    config: Config, embedded: Embedded, examples: Tuples, rows: Sequence[TupleRow], *, batch_size: int
) -> Judgement:
    """Returns the figures of vectors: of scored pairs, of texts alone, or of texts and those that belong to them.

    Args:
      rows: the texts of each example.
      batch_size: of the loss.
    """
    note = f"loss {embedded.loss:.4f} in batches of {batch_size:,}"
    task, sizes = config.task, contrast_of(config).sizes or (embedded.vectors_me.shape[1],)
    anchors_n, positives_n = examples.texts_nr[:, 0], examples.texts_nr[:, 1]
    tables = {size: _unit(embedded.vectors_me[:, :size]) for size in sizes}
    if task.loss == "cosent":
        cosines = {size: (unit[anchors_n] * unit[positives_n]).sum(-1) for size, unit in tables.items()}
        figures = {size: correlations(of_size, examples.scores_n) for size, of_size in cosines.items()}
        worst = _most_mistaken(rows, examples.scores_n, cosines[sizes[0]])
    elif (anchors_n == positives_n).all():
        note += "; texts alone do not tell which belong together: uniformity is the lower the better"
        figures = {size: {"uniformity": uniformity(unit)} for size, unit in tables.items()}
        worst = _nearest(rows, examples, ranks_of(tables[sizes[0]], examples.texts_nr[:_MOST]))
    else:
        ranks = {size: ranks_of(unit, examples.texts_nr) for size, unit in tables.items()}
        figures = {size: retrieval_figures(of_size.ranks_n) for size, of_size in ranks.items()}
        worst = _not_found(rows, examples, ranks[sizes[0]])
        candidates = len(np.unique(positives_n))
        note += f"; among {candidates:,} texts, of which chance finds {1 / candidates:.2%}"
    table = [
        f"  {size:>5} numbers: {', '.join(f'{name} {shown(figure)}' for name, figure in of_size.items())}"
        for size, of_size in (figures.items() if task.matryoshka else ())
    ]
    detail = {
        "loss": embedded.loss,
        "sizes": {size: {name: figure._asdict() for name, figure in of.items()} for size, of in figures.items()},
    }
    return Judgement(
        examples.name, len(anchors_n), figures[sizes[0]], note, table, detail, [worst] if worst.rows else []
    )


def _not_found(rows: Sequence[TupleRow], examples: Tuples, found: "Ranks") -> Table:
    """Texts to which many others are nearer than the one that belongs to them."""
    texts = _texts(rows, examples)

    def row(number: int) -> list[str]:
        rank, own, nearest, other = (x_n[number] for x_n in found)
        of_other = f"{other:.3f}" if nearest >= 0 else "-"
        return [*rows[number].texts[:2], texts.get(int(nearest), "-"), f"{rank:,}", f"{own:.3f}", of_other]

    what = "Texts that find what belongs to them the latest, and what they find in its place."
    columns = ["Text", "Belongs to it", "The nearest other", "Found as number", "Cosine", "Of the other"]
    # Of those with one rank, the ones to which another is nearer by more.
    off_n = found.ranks_n + np.clip(found.other_n - found.own_n, -2, 2) / 5
    return hardest(what, columns, off_n, row)._replace(numbers=3)


def _nearest(rows: Sequence[TupleRow], examples: Tuples, found: "Ranks") -> Table:
    """Texts that are near each other although nothing tells that they belong together."""
    texts = _texts(rows, examples)

    def row(number: int) -> list[str]:
        return [rows[number].texts[0], texts[int(found.nearest_n[number])], f"{found.other_n[number]:.3f}"]

    what = f"Of the first {len(found.ranks_n):,} texts those to which another is the nearest."
    pairs_2n = np.sort([examples.texts_nr[: len(found.nearest_n), 0], found.nearest_n], axis=0)
    once = np.unique(pairs_2n, axis=1, return_index=True)[1]
    off_n = np.full(len(found.other_n), -np.inf)
    off_n[once] = found.other_n[once]
    return hardest(what, ["Text", "The nearest other", "Cosine"], off_n, row)._replace(numbers=1)


def _most_mistaken(rows: Sequence[TupleRow], scores_n: np.ndarray, cosines_n: np.ndarray) -> Table:
    """Pairs whose cosine has another place among all cosines than their score among all scores."""

    def row(number: int) -> list[str]:
        return [*rows[number].texts[:2], f"{scores_n[number]:.4g}", f"{cosines_n[number]:.3f}"]

    what = "Pairs whose cosine is too high or too low for their score, as the others have it."
    from scipy.stats import rankdata  # takes a second to import

    off_n = np.abs(rankdata(cosines_n) - rankdata(scores_n))
    return hardest(what, ["Text", "Second text", "Score", "Cosine"], off_n, row)._replace(numbers=2)


def _texts(rows: Sequence[TupleRow], examples: Tuples) -> dict[int, str]:
    """Returns a text of each number."""
    return {
        number: text
        for numbers_r, row in zip(examples.texts_nr.tolist(), rows, strict=True)
        for number, text in zip(numbers_r, row.texts, strict=False)
    }


def evaluate_embedding(run: RunFolder, path: str | None, mesh: MeshConfig | None) -> Judgement:
    """Judges a run on the examples that it held out, or on others; see `evaluate_task`."""
    config, tokenizer = run.config(), run.tokenizer()
    devices = own_mesh(config, mesh)
    rows, name = held_out_side(config, path, functools.partial(read_tuples, config.task), split_tuples)
    sentence = read_settings(run.path, config.model.hidden_size, lowercases=tokenizer.rules.lowercase)
    max_length, prompt = config.data.max_length, sentence.default_prompt
    examples = make_tuples(rows, tokenizer, max_length=max_length, name=name, prompt=prompt)
    batch_size, row_length = config.train.batch_size, config.data.row_length
    batches = TupleBatches(examples, batch_size=batch_size, row_length=row_length, seed=config.seed)
    embedded = embed(config, sentence, batches, examples, load_params(run, config, devices), devices)
    return judge(config, embedded, examples, rows, batch_size=batches.batch_size)


class Ranks(NamedTuple):
    """Where n anchors find their positives."""

    ranks_n: np.ndarray  # int, at which place among all positives, from 1 on
    own_n: np.ndarray  # the cosine of each to its positive
    nearest_n: np.ndarray  # the number of the nearest other text, -1 where there is none
    other_n: np.ndarray  # its cosine


def ranks_of(unit_me: np.ndarray, texts_nr: np.ndarray) -> Ranks:
    """Returns at which place each anchor finds its positive among all positives.

    What is as near as the positive comes before it, so that vectors that are all the same find nothing. An anchor's
    other positives, and itself where it is another's positive, are left out.

    Args:
      unit_me: of length 1.
      texts_nr: the numbers of each example's texts; further columns than two are not looked at.
    """
    anchors_n, positives_n = texts_nr[:, 0], texts_nr[:, 1]
    candidates_c, own_n = np.unique(positives_n, return_inverse=True)
    of_anchor: dict[int, list[int]] = {}
    for anchor, own in zip(anchors_n.tolist(), own_n.tolist(), strict=True):
        of_anchor.setdefault(anchor, []).append(own)
    itself_n = np.searchsorted(candidates_c, anchors_n).clip(max=len(candidates_c) - 1)
    is_candidate_n = candidates_c[itself_n] == anchors_n
    found = Ranks(np.zeros(len(anchors_n), int), *(np.zeros(len(anchors_n), kind) for kind in (float, int, float)))
    for first in range(0, len(anchors_n), _AT_ONCE):
        some = slice(first, first + _AT_ONCE)
        cosines_nc = unit_me[anchors_n[some]] @ unit_me[candidates_c].T
        here_n, own = np.arange(len(cosines_nc)), own_n[some]
        found.own_n[some] = of_own_n = cosines_nc[here_n, own]
        there = is_candidate_n[some]
        cosines_nc[here_n[there], itself_n[some][there]] = -np.inf
        for number, anchor in enumerate(anchors_n[some].tolist()):
            cosines_nc[number, of_anchor[anchor]] = -np.inf
        found.ranks_n[some] = 1 + (cosines_nc >= of_own_n[:, None]).sum(-1)
        nearest_n = cosines_nc.argmax(-1)
        found.other_n[some] = cosines_nc[here_n, nearest_n]
        found.nearest_n[some] = np.where(np.isfinite(found.other_n[some]), candidates_c[nearest_n], -1)
    return found


def retrieval_figures(ranks_n: np.ndarray) -> dict[str, Figure]:
    """Returns what ranks come to: how often the first is right, and what a reader of ten finds."""
    found_n = ranks_n <= _TOP
    values: dict[str, np.ndarray] = {
        f"MRR@{_TOP}": np.where(found_n, 1 / ranks_n, 0.0),
        "accuracy@1": (ranks_n == 1).astype(float),
        f"nDCG@{_TOP}": np.where(found_n, 1 / np.log2(ranks_n + 1), 0.0),
        f"recall@{_TOP}": found_n.astype(float),
    }
    return {name: mean_of(values_n) for name, values_n in values.items()}


def uniformity(unit_me: np.ndarray) -> Figure:
    """Returns log of the mean of exp(-2 d²), d being how far texts are apart (Wang and Isola 2020, arXiv:2005.10242).

    It is 0 where all vectors are the same, and about -4 where they are spread over a sphere. Each text is held against
    some others.
    """
    rng, m = np.random.default_rng(0), len(unit_me)
    steps = rng.choice(np.arange(1, max(2, m)), min(_OTHERS, max(1, m - 1)), replace=False)
    near_m = np.mean(
        [np.exp(-2 * np.square(unit_me - np.roll(unit_me, step, axis=0)).sum(-1)) for step in steps], axis=0
    )
    return resampled(lambda some: float(np.log(near_m[some].mean())), m)


def _unit(vectors_me: np.ndarray) -> np.ndarray:
    return vectors_me / np.maximum(np.linalg.norm(vectors_me, axis=-1, keepdims=True), 1e-12)
