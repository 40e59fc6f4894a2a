"""Weights that a run starts from: random ones, those of a trained folder, or what counts of the text give."""

import functools
import itertools
import logging
from collections.abc import Collection, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import Mesh

from bertjax.config import Config
from bertjax.data.prepare import Prepared
from bertjax.data.statistics.frequencies import log_frequencies
from bertjax.data.tokenizer.tokenizer import Tokenizer
from bertjax.hub.folder import leaves
from bertjax.inference.pretrained import load
from bertjax.parallel.sharding import place_params
from bertjax.train.state import TrainState

_logger = logging.getLogger(__name__)

_OF_WORDS = {"token_embedding": 0, "mlm/bias": 0, "mlm/vocab/bias": 0, "mlm/vocab/kernel": 1}  # axes of the vocabulary


def initial_state(prepared: Prepared, mesh: Mesh, state: TrainState) -> TrainState:
    """Returns a fresh state with the weights of the folder, or the counts, that the run starts from.

    Args:
      state: with random weights, over the mesh.

    Raises:
      BertjaxError: the folder has no weights that can be read.
    """
    config = prepared.config
    if config.init_from is None:
        return state._replace(params=_from_counts(prepared, mesh, state.params))
    return state._replace(params=from_folder(config, mesh, state.params, tokenizer=prepared.tokenizer))


def from_folder(
    config: Config,
    mesh: Mesh,
    params: dict[str, Any],
    *,
    anew: Collection[str] = (),
    tokenizer: Tokenizer | None = None,
) -> dict[str, Any]:
    """Returns fresh parameters with the weights of the folder of `config.init_from` in place of all parts it has too.

    Args:
      params: over the mesh.
      anew: parts that stay fresh whatever the folder has, and so do those that `config.task.reinit_layers` names.
      tokenizer: the run's, which may have more words than the folder's.

    Raises:
      BertjaxError: the folder has no weights that can be read.
    """
    folder, reinit = config.init_from, config.task.reinit_layers
    assert folder is not None
    last = range(config.model.num_blocks - reinit, config.model.num_blocks)
    again = {*(f"block_{layer}" for layer in last), *(["pooler"] if reinit else [])} & params.keys()
    trained = load(folder, mesh)
    found = _with_layers(trained.params, config.init_layers)
    of = "" if config.init_layers is None else f" in layers {', '.join(map(str, config.init_layers))}"
    but = f", but for {', '.join(sorted(again))}, which start anew" if again else ""
    _logger.info(f"weights:  those of {folder}{of} to begin with{but}")
    found = _with_positions(found, params, config)
    if tokenizer is not None:
        found = _with_words(found, params, trained.tokenizer, tokenizer)
    shapes, there = jax.tree.map(jnp.shape, params), jax.tree.map(jnp.shape, found)
    fitting = {part: found[part] for part in params if part not in {*anew, *again} and there.get(part) == shapes[part]}
    if lacking := [part for part in params if part not in {*fitting, *again}]:
        has = ", ".join(lacking)
        _logger.info(f"NOTICE:   {folder} has no weights of {has}: the run starts with fresh ones")
    return params | fitting


def _with_layers(params: dict[str, Any], layers: Sequence[int] | None) -> dict[str, Any]:
    """A trained model's parameters, with only these of its layers."""
    if layers is None:
        return params
    rest = {part: leaf for part, leaf in params.items() if not part.startswith("block_")}
    return rest | {f"block_{place}": params[f"block_{layer}"] for place, layer in enumerate(layers)}


def _with_positions(found: dict[str, Any], params: dict[str, Any], config: Config) -> dict[str, Any]:
    """A trained model's parameters, with positions for texts as long as the fresh ones have them for."""
    table, fresh = found.get("position_embedding"), params.get("position_embedding")
    if table is None or fresh is None or len(fresh) <= len(table):
        return found
    how, length = config.init_positions, len(fresh)
    _logger.info(f"positions: {len(table):,} there, {how} for {length:,}")
    extend = jax.jit(extended_positions, static_argnums=(1, 2), out_shardings=fresh.sharding)
    return found | {"position_embedding": extend(table, length, how)}


def extended_positions(table_pd: Array, length: int, how: Literal["tiled", "interpolated"]) -> Array:
    """Returns embeddings of that many positions, made of those of fewer: see `Config.init_positions`."""
    p = len(table_pd)
    if how == "tiled":
        return table_pd[jnp.arange(length) % p]
    place_l = jnp.arange(length) * ((p - 1) / (length - 1))
    below_l = jnp.minimum(place_l.astype(int), max(0, p - 2))
    share_l1 = (place_l - below_l)[:, None]
    return (1 - share_l1) * table_pd[below_l] + share_l1 * table_pd[jnp.minimum(below_l + 1, p - 1)]


def _with_words(found: dict[str, Any], params: dict[str, Any], old: Tokenizer, new: Tokenizer) -> dict[str, Any]:
    """A trained model's parameters, with those of words that its tokenizer lacked: means of those of their pieces."""
    words = new.tokens(range(old.vocab_size, new.vocab_size))
    if not words:
        return found
    pieces = [old.ids(old.split(old.in_text(word))) for word in words]
    word_n = jnp.array([word for word, of_word in enumerate(pieces) for _ in of_word])
    piece_n = jnp.array(list(itertools.chain.from_iterable(pieces)))
    fresh = dict(leaves(params))

    def grown(path: Any, table: Array) -> Array:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        if name not in _OF_WORDS or name not in fresh:
            return table

        def grow(table: Array) -> Array:
            table = jnp.moveaxis(table, _OF_WORDS[name], 0)
            sums = jax.ops.segment_sum(table[piece_n], word_n, len(words))
            means = sums / jnp.bincount(word_n, length=len(words)).reshape(-1, *[1] * (table.ndim - 1))
            made = jnp.zeros((fresh[name].shape[_OF_WORDS[name]], *table.shape[1:]), table.dtype)
            made = made.at[: len(table)].set(table).at[old.vocab_size : old.vocab_size + len(words)].set(means)
            return jnp.moveaxis(made, 0, _OF_WORDS[name])

        return jax.jit(grow, out_shardings=fresh[name].sharding)(table)

    return jax.tree_util.tree_map_with_path(grown, found)


def _from_counts(prepared: Prepared, mesh: Mesh, params: dict[str, Any]) -> dict[str, Any]:
    """Fresh parameters, but for those that are to start from the words of the training text."""
    data, model, corpus = prepared.config.data, prepared.config.model, prepared.train
    vocabulary, size = prepared.tokenizer.vocabulary, model.vocab_size
    assert size is not None
    if model.frequency_bias:
        bias_v = log_frequencies(corpus, vocabulary, size, predict_unk=data.predict_unk)
        head = {"bias": bias_v} if model.tie_word_embeddings else {"vocab": {"bias": bias_v}}
        params = _merged(params, place_params({"mlm": head}, mesh))
    if model.cooccurrence_embedding:
        # With SciPy, which a start without it need not wait for.
        from bertjax.data.statistics.cooccurrence import cooccurrence_embedding

        scale = model.init_scale if model.init == "bert" else 1.0
        table_vd, known_v = cooccurrence_embedding(
            corpus, vocabulary, size, model.embedding_width, scale=scale, seed=prepared.config.seed
        )
        table_vd, random_vd = (
            place_params({"token_embedding": table_vd}, mesh)["token_embedding"],
            params["token_embedding"],
        )
        choose = jax.jit(functools.partial(jnp.where, known_v[:, None]), out_shardings=random_vd.sharding)
        params = params | {"token_embedding": choose(table_vd, random_vd)}
    return params


def _merged(tree: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    return tree | {key: _merged(tree[key], leaf) if isinstance(leaf, dict) else leaf for key, leaf in other.items()}
