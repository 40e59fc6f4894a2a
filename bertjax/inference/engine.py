"""Rows of ids to vectors: over all devices of the process, a few shapes only, read back late."""

import collections
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from bertjax.config import BertConfig
from bertjax.data.batching.packing import Placement, pack
from bertjax.inference.texts import Row
from bertjax.models.bert import Bert, params_template
from bertjax.parallel.sharding import by_rows, make_mesh, replicated

T = TypeVar("T")
Pooling = Literal["cls", "mean", "max", "tokens"]
Precision = Literal["float32", "bfloat16"]
Vectors = np.ndarray | list[np.ndarray]  # [texts, hidden], or of each text [t, hidden]

# Texts are packed into rows of few shapes, seven at most, so that a new length seldom means a new compilation.
_LENGTHS = (16, 128)  # and the model's longest
_TOKENS_AT_ONCE, _TOKENS_AT_ONCE_ON_CPU = 16384, 2048  # on a device
_SLACK = 2  # tokens that a row may leave empty for the sake of shorter texts
_ALONE = Placement(*np.zeros((3, 1), int))
_PREDICTED_AT_ONCE = 8
_UNDER_WAY = 2  # batches that the devices have before the host waits for one: they never wait for it


class Inference:
    """A model without dropout, a whole copy of its parameters on each device; batches are split by rows."""

    def __init__(self, config: BertConfig, params: dict[str, Any], precision: Precision):
        self.config, dtype = config, jnp.dtype(precision)
        ours = [device for device in jax.devices() if device.process_index == jax.process_index()]
        mesh = make_mesh(devices=ours)
        cast = jax.tree.map_with_path(
            lambda path, leaf: leaf.astype(dtype) if path[-1].key == "kernel" else leaf, params
        )
        self.num_devices, self.params = len(ours), jax.device_put(cast, replicated(mesh))
        model = Bert(config, dtype=dtype)
        self.forward = jax.jit(
            functools.partial(_forward, model),
            static_argnums=0,
            in_shardings=(replicated(mesh), *[by_rows(mesh)] * 4),
            out_shardings=by_rows(mesh),
        )
        self._fill = jax.jit(functools.partial(_fill, model))
        self.tokens_at_once = _tokens_at_once() * len(ours)
        self._lengths = sorted({min(length, config.max_position) for length in (*_LENGTHS, config.max_position)})

    def tokens(self, row: Row) -> np.ndarray:
        """Representations of one text, float32 [t, hidden]."""
        return np.asarray(self._run([row], _ALONE, "tokens"))[0, : len(row.ids)]

    def has_mlm_head(self) -> bool:
        """Whether the parameters can predict words; a BERT from elsewhere may have come without."""
        wanted = params_template(Bert(self.config))["mlm"]
        there, needed = (
            {path for path, _ in jax.tree.leaves_with_path(tree)} for tree in (self.params, {"mlm": wanted})
        )
        return needed <= there

    def fill(self, row: Row, positions: list[int]) -> np.ndarray:
        """Of one text's tokens at these positions, how likely each of the vocabulary is: float32 [p, v]."""
        batch = self._batch([row], _ALONE)
        filled = np.zeros(-(-len(positions) // _PREDICTED_AT_ONCE) * _PREDICTED_AT_ONCE, np.int32)
        filled[: len(positions)] = positions
        return np.asarray(self._fill(self.params, *batch[:, :1], filled))[: len(positions)]

    def vectors(self, windows: Iterable[list[Row]], pooling: Pooling, normalize: bool) -> Iterator[Vectors]:
        """Those of the texts of each window in turn; batches are read back late, across windows."""

        def dispatched() -> Iterator[tuple[Vectors, Callable[[], None] | None]]:
            for rows in windows:
                vectors: Vectors = [np.empty(0, np.float32)] * len(rows)
                if pooling != "tokens":
                    vectors = np.zeros((len(rows), self.config.hidden_size), np.float32)
                for chosen, placement in self._batches(rows):
                    some = [rows[number] for number in chosen]
                    result = self._run(some, placement, pooling)
                    yield vectors, functools.partial(_read_back, vectors, result, some, chosen, placement)
                yield vectors, None

        for vectors, read_back in late(dispatched(), _UNDER_WAY):
            if read_back is not None:
                read_back()
            elif normalize:
                yield [_unit(of_text) for of_text in vectors] if isinstance(vectors, list) else _unit(vectors)
            else:
                yield vectors

    def _batches(self, rows: list[Row]) -> Iterator[tuple[np.ndarray, Placement]]:
        """Which texts are computed together, and where in the batch each is."""
        sizes = np.array([len(row.ids) for row in rows], int)
        shorter = 0
        for length in self._lengths[-2:]:
            chosen = np.flatnonzero((sizes > shorter) & (sizes <= length))
            shorter = length
            if not len(chosen):
                continue
            placement = pack(sizes[chosen], row_length=length, max_sequences=_most_texts(length), slack=_SLACK)
            most = _most_rows(length) * self.num_devices
            order = np.argsort(placement.row_n, kind="stable")
            starts = np.searchsorted(placement.row_n[order], range(0, placement.num_rows + most, most))
            for number, (start, end) in enumerate(itertools.pairwise(starts)):
                here = placement.take(order[start:end])
                yield chosen[order[start:end]], here._replace(row_n=here.row_n - number * most)

    def _run(self, rows: list[Row], placement: Placement, pooling: Pooling) -> Array:
        """What `_forward` makes of texts, each in its place."""
        return self.forward(pooling, self.params, *self._batch(rows, placement))

    def _batch(self, rows: list[Row], placement: Placement) -> np.ndarray:
        """Tokens, segments, positions and sequences [4, b, t]."""
        sizes_n = np.array([len(row.ids) for row in rows])
        needed = int((placement.offset_n + sizes_n).max())
        length = next(length for length in self._lengths if length >= needed)
        most = _most_rows(length)
        num_rows = self.num_devices * next(
            n for n in (1, -(-most // 4), most) if n * self.num_devices >= placement.num_rows
        )
        # Of each token m of the texts, one after the other, the number inside its text, and the place in the batch.
        within_m = np.arange(sizes_n.sum()) - np.repeat(np.cumsum(sizes_n) - sizes_n, sizes_n)
        place_m = np.repeat(placement.row_n * length + placement.offset_n, sizes_n) + within_m
        batch = np.zeros((4, num_rows * length), np.int32)
        batch[0, place_m] = np.fromiter(itertools.chain.from_iterable(row.ids for row in rows), np.int32)
        batch[1, place_m] = within_m >= np.repeat([row.len_a for row in rows], sizes_n)
        batch[2, place_m] = within_m
        batch[3, place_m] = np.repeat(placement.slot_n + 1, sizes_n)
        return batch.reshape(4, num_rows, length)


def late(items: Iterable[T], by: int) -> Iterator[T]:
    """Each when so many after it have been made."""
    waiting: collections.deque[T] = collections.deque()
    for item in items:
        waiting.append(item)
        if len(waiting) > by:
            yield waiting.popleft()
    yield from waiting


def _read_back(vectors: Vectors, result: Array, rows: list[Row], chosen: np.ndarray, placement: Placement) -> None:
    """Waits for a batch and puts its vectors where they belong."""
    array = np.asarray(result)
    if isinstance(vectors, np.ndarray):
        vectors[chosen] = array[placement.row_n, placement.slot_n]
        return
    for number, row, at, offset in zip(chosen, rows, placement.row_n, placement.offset_n, strict=True):
        vectors[number] = array[at, offset : offset + len(row.ids)].copy()


def _unit(vectors_nd: np.ndarray) -> np.ndarray:
    lengths_n1 = np.linalg.norm(vectors_nd, axis=-1, keepdims=True)
    return vectors_nd / np.where(lengths_n1 > 0, lengths_n1, 1)


def _tokens_at_once() -> int:
    return _TOKENS_AT_ONCE if jax.default_backend() != "cpu" else _TOKENS_AT_ONCE_ON_CPU


def _most_rows(length: int) -> int:
    return max(1, _tokens_at_once() // length)


def _most_texts(length: int) -> int:
    return max(1, length // 2)  # the shortest is <cls> <sep>


def _forward(
    model: Bert,
    pooling: Pooling,
    params: dict[str, Any],
    tokens_bt: Array,
    segments_bt: Array,
    positions_bt: Array,
    sequences_bt: Array,
) -> Array:
    """Representations [b, t, d] of "tokens", or of each sequence their mean, maximum, or that of `<cls>`, [b, k, d]."""
    args = (tokens_bt, segments_bt, positions_bt, sequences_bt)
    encoded_btd = model.apply({"params": params}, *args, method=model.encode)
    if pooling == "tokens":
        return encoded_btd
    most_texts = _most_texts(tokens_bt.shape[1])
    if pooling == "max":
        # Sequence 0 is padding.
        of_row = functools.partial(jax.ops.segment_max, num_segments=most_texts + 1)
        return jax.vmap(of_row)(encoded_btd, sequences_bt)[:, 1:]
    numbers_1k1 = 1 + jnp.arange(most_texts)[None, :, None]
    pooled_bkt = (sequences_bt[:, None] == numbers_1k1) & ((positions_bt == 0) | (pooling == "mean"))[:, None]
    shares_bkt = pooled_bkt / jnp.maximum(pooled_bkt.sum(-1, keepdims=True), 1)
    # Padding means nothing, and 0 times it must be 0.
    encoded_btd = jnp.where(sequences_bt[:, :, None] > 0, encoded_btd, 0)
    return jnp.einsum("bkt,btd->bkd", shares_bkt, encoded_btd)


def _fill(
    model: Bert,
    params: dict[str, Any],
    tokens_1t: Array,
    segments_1t: Array,
    positions_1t: Array,
    sequences_1t: Array,
    masks_p: Array,
) -> Array:
    """How likely each token of the vocabulary is at these positions, float32 [p, v]."""
    args = (tokens_1t, segments_1t, positions_1t, sequences_1t)
    encoded_1td = model.apply({"params": params}, *args, method=model.encode)
    return jax.nn.softmax(model.apply({"params": params}, encoded_1td[0, masks_p], method=model.words))
