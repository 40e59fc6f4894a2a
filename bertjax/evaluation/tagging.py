"""Held-out figures of a tagger: entities found, by seqeval's strict rules, and words that have the right tag.

Letters: n sentences, w words in all, k types of entities, or tags where these mark none.
"""

import functools
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh

from bertjax.config import Config, MeshConfig
from bertjax.data.batching.tagged import TaggedBatch, TaggedBatches
from bertjax.data.prepare_tagging import held_out_sentences
from bertjax.data.tagged import NO_TAG, Sentence, TaggedExamples, make_tagged
from bertjax.data.tags import Tags, entities
from bertjax.evaluation.classification import table_by_label
from bertjax.evaluation.evaluate import own_mesh
from bertjax.evaluation.judgement import Figure, Judgement, hardest, resampled
from bertjax.evaluation.outputs import outputs_of
from bertjax.models.bert import make_model
from bertjax.models.tagger import TokenClassifier
from bertjax.objectives.objective import Params
from bertjax.objectives.tagging import token_logits
from bertjax.runs.folder import RunFolder
from bertjax.runs.parameters import load_params
from bertjax.runs.report import Table

_SHOWN = 20  # types in a table, those that are there most often


def make_tagger(config: Config, tags: Tags, mesh: Mesh, *, learning: bool) -> TokenClassifier:
    """Returns the model that tells tags, for a mesh."""
    bert = make_model(config.model, config.train, learning=learning).clone(mesh=mesh)
    return TokenClassifier(bert, tags.num_outputs)


def judge_tagger(
    config: Config,
    tags: Tags,
    examples: TaggedExamples,
    batches: TaggedBatches,
    sentences: Sequence[Sentence],
    params: Params,
    mesh: Mesh,
) -> Judgement:
    """Returns the figures of parameters on sentences.

    Args:
      batches: of the examples.
      sentences: the words of each example.
      params: over the mesh.
    """
    guess = functools.partial(_likeliest, make_tagger(config, tags, mesh, learning=False))
    guessed_m = outputs_of(guess, params, batches, mesh, places=batches.tokens_at, count=len(examples.ids))[:, 0]
    is_read_w = examples.first_tokens_w >= 0
    guessed_w = np.where(is_read_w, guessed_m[examples.first_tokens_w], NO_TAG)
    judged, worst = judge_tags(examples, guessed_w, tags), hardest_sentences(examples, guessed_w, sentences, tags)
    return judged._replace(tables=[*judged.tables, worst] if worst.rows else judged.tables)


def _likeliest(model: TokenClassifier, params: Params, batch: TaggedBatch) -> Array:
    return jnp.asarray(token_logits(model, params, batch).argmax(-1)[..., None], jnp.int32)


def judge_tags(examples: TaggedExamples, guessed_w: np.ndarray, tags: Tags) -> Judgement:
    """Returns figures of tags that were guessed, with intervals over sentences.

    Where tags mark entities, precision, recall and F1 are those of all entities together; an entity is found where its
    type, its first and its last word are right. Words that are not read have no entities, and no right tag.

    Args:
      guessed_w: int, the number of each word's tag; NO_TAG where it is not read.
    """
    names = np.array([*tags.names, ""], object)  # NO_TAG, -1, is the number of the last one
    cuts = examples.word_starts_n[1:-1]
    there_n, told_n = (np.split(names[numbers_w], cuts) for numbers_w in (examples.tags_w, guessed_w))
    words_n, right_w = np.diff(examples.word_starts_n), guessed_w == examples.tags_w
    right_n = np.bincount(np.repeat(np.arange(len(words_n)), words_n), right_w, len(words_n))
    types, counts_n3k = _counts(there_n, told_n, tags)

    def over_sentences(figure: str) -> Figure:
        def of(some: np.ndarray) -> float:
            times_n = np.bincount(some, minlength=len(words_n))
            if figure == "accuracy":
                return float(times_n @ right_n / (times_n @ words_n))
            return _figure(figure, np.tensordot(times_n, counts_n3k, 1))

        return resampled(of, len(words_n))

    wanted = ("F1", "precision", "recall", "accuracy") if tags.scheme else ("accuracy", "macro F1")
    counts_3k = counts_n3k.sum(0)
    not_read = int((guessed_w == NO_TAG).sum())
    commonest = np.bincount(examples.tags_w).max() / len(examples.tags_w)
    notes = [f"{int(counts_3k[1].sum()):,} entities, {tags.scheme}"] if tags.scheme else []
    notes.append(f"the commonest tag alone has accuracy {commonest:.4f}")
    if not_read:
        notes.append(f"{not_read:,} of {len(guessed_w):,} words are not read, and are missed")
    right_k, there_k, guessed_k = counts_3k
    return Judgement(
        examples.name,
        len(words_n),
        {figure: over_sentences(figure) for figure in wanted},
        "; ".join(notes),
        _table(types, counts_3k, "entity" if tags.scheme else "tag"),
        {
            "scheme": tags.scheme,
            "words": len(guessed_w),
            "not_read": not_read,
            "of_type": {
                type: {"there": there, "right": right, "guessed": guessed}
                for type, right, there, guessed in zip(types, *counts_3k.tolist(), strict=True)
            },
        },
        [table_by_label(types, there_k, right_k, guessed_k)],
    )


def hardest_sentences(
    examples: TaggedExamples, guessed_w: np.ndarray, sentences: Sequence[Sentence], tags: Tags
) -> Table:
    """Returns a table of the sentences with the most words whose tag is wrong; the arguments are those above."""
    names = [*tags.names, "not read"]  # NO_TAG, -1, is the number of the last one
    wrong_w = np.flatnonzero(guessed_w != examples.tags_w)
    of_sentence_w = np.searchsorted(examples.word_starts_n, wrong_w, side="right") - 1
    off_n = np.bincount(of_sentence_w, minlength=len(sentences)).astype(float)

    def row(number: int) -> list[str]:
        words, first = sentences[number].words, examples.word_starts_n[number]
        wrong = [
            f"{words[at - first]}: {names[guessed_w[at]]}, not {names[examples.tags_w[at]]}"
            for at in wrong_w[of_sentence_w == number]
        ]
        return [" ".join(words), "; ".join(wrong)]

    what = "Sentences in which the most words have a wrong tag: often the tags themselves are worth a look."
    return hardest(what, ["Sentence", "Told"], np.where(off_n > 0, off_n, -np.inf), row)


def _counts(there_n: Sequence[np.ndarray], told_n: Sequence[np.ndarray], tags: Tags) -> tuple[list[str], np.ndarray]:
    """Returns what there is of each sentence by type, float [n, 3, k]: right ones, those there, and those guessed."""

    def marked(of_sentence: np.ndarray) -> set[tuple[str, int, int]]:
        if tags.scheme is None:
            return {(tag, place, place + 1) for place, tag in enumerate(of_sentence) if tag}
        return set(entities(of_sentence.tolist(), tags.scheme))

    found = [(marked(there), marked(told)) for there, told in zip(there_n, told_n, strict=True)]
    types = sorted({one[0] for both in found for some in both for one in some})
    places = {type: place for place, type in enumerate(types)}
    counts_n3k = np.zeros((len(found), 3, len(types)))
    for of_sentence_3k, (there, told) in zip(counts_n3k, found, strict=True):
        for kind, some in enumerate((there & told, there, told)):
            for one in some:
                of_sentence_3k[kind, places[one[0]]] += 1
    return types, counts_n3k


def _figure(name: str, counts_3k: np.ndarray) -> float:
    if name == "macro F1":
        both_k = counts_3k[1] + counts_3k[2]
        return float((2 * counts_3k[0][both_k > 0] / both_k[both_k > 0]).mean())
    right, there, guessed = counts_3k.sum(1)
    total, parts = {"F1": (there + guessed, 2), "precision": (guessed, 1), "recall": (there, 1)}[name]
    return float(parts * right / total) if total else 0.0


def _table(types: Sequence[str], counts_3k: np.ndarray, what: str) -> list[str]:
    width = max(10, *(len(type) for type in types), 0)
    lines = [f"  {what:<{width}}{'there':>10}{'found':>9}{'right of guessed':>18}{'F1':>9}"]
    for number in np.argsort(-counts_3k[1], kind="stable")[:_SHOWN]:
        right, there, guessed = counts_3k[:, number]
        shares = (f"{part * right / whole:.1%}" if whole else "-" for part, whole in ((1, there), (1, guessed)))
        f1 = f"{2 * right / (there + guessed):.4f}"
        lines.append(f"  {types[number]:<{width}}{int(there):>10,}" + "{:>9}{:>18}".format(*shares) + f"{f1:>9}")
    return lines


def evaluate_tagging(run: RunFolder, path: str | None, mesh: MeshConfig | None) -> Judgement:
    """Judges a run on the sentences that it held out, or on others; see `evaluate_task`."""
    config, tags = run.config(), run.tags()
    devices = own_mesh(config, mesh)
    sentences, name = held_out_sentences(config, path)
    examples = make_tagged(
        *(sentences, tags, run.tokenizer()),
        max_length=config.data.max_length,
        label_pieces=config.task.label_pieces,
        name=name,
    )
    batch_size, row_length = config.train.batch_size, config.data.row_length
    batches = TaggedBatches(examples, batch_size=batch_size, row_length=row_length, seed=config.seed)
    return judge_tagger(config, tags, examples, batches, sentences, load_params(run, config, devices), devices)
