"""Token ids to vectors, over all devices of the process.

Texts are packed into batches of few shapes, so that a new length seldom means a new compilation, and results are read
back late, so that the devices never wait for the host.
"""

import collections
import contextlib
import functools
import itertools
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh

from bertjax.config import BertConfig, MeshConfig
from bertjax.data.batching.packing import Placement, pack
from bertjax.data.reader import TokenIds
from bertjax.inference.programs import Precision, make_programs, max_texts, of_batch
from bertjax.models.bert import Bert, params_template
from bertjax.models.sentence import Layer, vector_size
from bertjax.parallel.memory import enough_memory
from bertjax.parallel.sharding import (
    by_name,
    local_devices,
    make_mesh,
    replicated,
    row_shards,
)
from bertjax.storage.cores import num_cores

T = TypeVar("T")
Pooling = Literal["cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken", "tokens"]
Vectors = np.ndarray | list[np.ndarray]  # [texts, size], or [t, hidden] for each text

_ROW_LENGTHS = (16, 128)  # and the model's longest; with three numbers of rows that makes seven shapes at most
_TOKENS_PER_BATCH, _TOKENS_PER_BATCH_ON_CPU = 16384, 2048  # on each device that has rows of its own
_SLACK = 2  # tokens that a row may leave empty for the sake of shorter texts
_ALONE = Placement(*np.zeros((3, 1), int))  # one text at the start of the first row
MASKS_PER_CALL = 8  # the number of masks is padded to a multiple of it
_BATCHES_IN_FLIGHT = 2  # that the devices have before the host waits for one
# A batch has products that keep all cores at work and much else that does not; meanwhile another has them. On two cores
# that was 1.1 to 1.35 times as many texts a second with a MiniLM, and no more with four batches.
_BATCHES_AT_ONCE_ON_CPU = 2
_LESS_MEMORY = "give shorter texts, a smaller model, or a machine with more memory"


class Shape(NamedTuple):
    """Rows of a batch, and tokens of a row: for each there is a program."""

    num_rows: int
    length: int


class Recipe(NamedTuple):
    """How vectors are made of the representations of tokens."""

    pooling: tuple[str, ...]  # kinds of which the results stand one after the other; or "tokens" alone: all as they are
    layers: tuple[Layer, ...] = ()  # what the vectors go through then; placed by `Engine.place`
    skip: int = 0  # tokens at the start of each text that are not pooled
    normalize: bool = False  # whether the length of each vector is made 1

    @property
    def of_tokens(self) -> bool:
        """Whether there is a vector for each token instead of one for each text."""
        return self.pooling == ("tokens",)


TOKENS = Recipe(("tokens",))


class Engine:
    """A model without dropout, its parameters on a mesh by their names; batches are split by rows.

    Args:
      config: the model's.
      params: nested, float32, on any device or on the host.
      precision: what matrix products multiply.
      mesh: of this process's devices, as `local_mesh` makes it.
      shortest: tokens of the shortest text; by default <cls> and <sep>.
    """

    def __init__(
        self, config: BertConfig, params: dict[str, Any], precision: Precision, mesh: Mesh, *, shortest: int = 2
    ):
        self.config, self._shortest, dtype = config, shortest, jnp.dtype(precision)
        cast = jax.tree.map_with_path(
            lambda path, leaf: leaf.astype(dtype) if path[-1].key == "kernel" else leaf, params
        )
        self._replicated, self._of_batch = replicated(mesh), of_batch(mesh)
        with enough_memory(_LESS_MEMORY):
            self.row_shards, self.params = row_shards(mesh), jax.device_put(cast, by_name(cast, mesh))
        self.forward, self._pool, self._words = make_programs(config, precision, mesh, shortest)
        self._workers = _workers() if mesh.size == 1 and mesh.devices.flat[0].platform == "cpu" else None
        self._programs: set[tuple[Any, ...]] = set()
        self._making = threading.Lock()
        self.compile_seconds = 0.0  # in which programs were made; what runs on a device is not waited for
        self.tokens_per_batch = _tokens_per_batch() * self.row_shards
        longest = config.max_position
        self._row_lengths = sorted({min(length, longest) for length in (*_ROW_LENGTHS, longest)})

    def place(self, tree: T) -> T:
        """Returns the arrays of a tree whole on each device."""
        placed: T = jax.device_put(tree, self._replicated)
        return placed

    def max_texts(self, length: int) -> int:
        """Returns how many texts a row of so many tokens has vectors for."""
        return max_texts(length, self._shortest)

    def vector_size(self, recipe: Recipe) -> int:
        """Returns how many numbers there are in a vector."""
        kinds = 1 if recipe.of_tokens else len(recipe.pooling)
        return vector_size(recipe.layers, kinds * self.config.hidden_size)

    def has_mlm_head(self) -> bool:
        """Returns whether the parameters can predict tokens; a BERT from elsewhere may have come without that head."""
        wanted = {"mlm": params_template(Bert(self.config))["mlm"]}
        there, needed = ({path for path, _ in jax.tree.leaves_with_path(tree)} for tree in (self.params, wanted))
        return needed <= there

    def token_vectors(self, text: TokenIds) -> np.ndarray:
        """Returns the representations of one text's tokens, float32 [t, hidden]."""
        return _on_host(functools.partial(self._vectors, [text], _ALONE, TOKENS))[0, : len(text.ids)]

    def token_probabilities(self, text: TokenIds, positions: list[int]) -> np.ndarray:
        """Returns how likely each token of the vocabulary is at these positions of one text.

        Args:
          text: the text, with masks in it.
          positions: p of its tokens, counted from 0.

        Returns:
          float32 [p, vocabulary].
        """
        computed = functools.partial(self._probabilities, [text], _ALONE, [positions])
        return _on_host(computed)[: len(positions)]

    def vectors(self, windows: Iterable[list[TokenIds]], recipe: Recipe) -> Iterator[Vectors]:
        """Yields the vectors of each window's texts in turn.

        Args:
          windows: texts that are sorted by length and packed together; the next window is asked for while the devices
            are at the one before.
          recipe: how they are made.

        Yields:
          float32 [texts, size]; for vectors of tokens a list with [t, hidden] for each text.
        """

        def dispatched() -> Iterator[tuple[Vectors, Callable[[], None] | None]]:
            for texts in windows:
                vectors: Vectors = [np.empty(0, np.float32)] * len(texts)
                if not recipe.of_tokens:
                    vectors = np.zeros((len(texts), self.vector_size(recipe)), np.float32)
                for chosen, placement in self._batches(texts):
                    some = [texts[number] for number in chosen]
                    result = self.start(some, placement, recipe)
                    yield vectors, functools.partial(_read_back, vectors, result, some, chosen, placement)
                yield vectors, None

        for vectors, read_back in delayed(dispatched(), _BATCHES_IN_FLIGHT):
            if read_back is not None:
                read_back()
            elif recipe.normalize:
                yield [unit(of_text) for of_text in vectors] if isinstance(vectors, list) else unit(vectors)
            else:
                yield vectors

    def _batches(self, texts: list[TokenIds]) -> Iterator[tuple[np.ndarray, Placement]]:
        """Yields the numbers of texts that are computed together, and the place in the batch of each."""
        if len(texts) == 1:  # no packing, which takes a millisecond where the caches hold weights
            yield _ALONE.row_n, _ALONE
            return
        sizes = np.array([len(text.ids) for text in texts], int)
        shorter = 0
        for length in self._row_lengths[-2:]:
            chosen = np.flatnonzero((sizes > shorter) & (sizes <= length))
            shorter = length
            if not len(chosen):
                continue
            placement = pack(sizes[chosen], row_length=length, max_sequences=self.max_texts(length), slack=_SLACK)
            most = _max_rows(length) * self.row_shards
            order = np.argsort(placement.row_n, kind="stable")
            starts = np.searchsorted(placement.row_n[order], range(0, placement.num_rows + most, most))
            for number, (start, end) in enumerate(itertools.pairwise(starts)):
                here = placement.take(order[start:end])
                yield chosen[order[start:end]], here._replace(row_n=here.row_n - number * most)

    def start(
        self, texts: list[TokenIds], placement: Placement, recipe: Recipe, shape: Shape | None = None
    ) -> Callable[[], np.ndarray]:
        """Starts a batch on the devices.

        Args:
          texts: what is in it.
          placement: where each of them is.
          recipe: how vectors are made.
          shape: that holds the placement; by default the first one here that does.

        Returns:
          what waits for them and returns the vectors of the sequences of each row, float32 [b, k, size], or of its
          tokens, [b, t, size].
        """
        return self._started(functools.partial(self._vectors, texts, placement, recipe, shape))

    def start_words(
        self, texts: list[TokenIds], placement: Placement, positions: list[list[int]], shape: Shape | None = None
    ) -> Callable[[], np.ndarray]:
        """Starts a batch whose masks are guessed.

        Args:
          texts, placement, shape: as for `start`.
          positions: of each text some of its tokens, counted from 0.

        Returns:
          what waits for it and returns how likely each token of the vocabulary is at each position, all in one line,
          float32 [p, vocabulary]; p is padded to a multiple of 8.
        """
        return self._started(functools.partial(self._probabilities, texts, placement, positions, shape))

    def _started(self, computed: Callable[[], Array]) -> Callable[[], np.ndarray]:
        """Starts a batch, on a CPU in a thread that waits for it; returns what waits for its result."""
        if self._workers is not None:
            return self._workers.submit(_on_host, computed).result
        with enough_memory(_LESS_MEMORY):
            result = computed()
        return functools.partial(_on_host, lambda: result)

    def _vectors(
        self, texts: list[TokenIds], placement: Placement, recipe: Recipe, shape: Shape | None = None
    ) -> Array:
        batch = self._batch(texts, placement, shape)
        placed = self._placed(batch)
        with self._timed_if_new((recipe.pooling, recipe.skip, batch.shape)):
            result = self.forward(self.params, placed)
            if recipe.layers or not recipe.of_tokens:
                result = self._pool(recipe.pooling, recipe.skip, recipe.layers, result, placed)
        return result

    @contextlib.contextmanager
    def _timed_if_new(self, program: tuple[Any, ...]) -> Iterator[None]:
        """Counts the seconds in which a program is made, by one thread: others, which would make it too, wait."""
        with contextlib.nullcontext() if program in self._programs else self._making:
            began, new = time.perf_counter(), program not in self._programs
            yield
            if new:
                self._programs.add(program)
                self.compile_seconds += time.perf_counter() - began

    def _probabilities(
        self, texts: list[TokenIds], placement: Placement, positions: list[list[int]], shape: Shape | None = None
    ) -> Array:
        placed = self._placed(self._batch(texts, placement, shape))
        counts = [len(of_text) for of_text in positions]
        at_2p = np.zeros((2, -(-sum(counts) // MASKS_PER_CALL) * MASKS_PER_CALL), np.int32)
        at_2p[0, : sum(counts)] = np.repeat(placement.row_n, counts)
        at_2p[1, : sum(counts)] = np.repeat(placement.offset_n, counts) + np.concatenate(positions)
        return self._words(self.params, self.forward(self.params, placed), *at_2p)

    def _placed(self, batch: np.ndarray) -> np.ndarray | Array:
        """Returns a batch on the devices where JAX does not put it there by itself, which is quicker."""
        return batch if jax.process_count() == 1 else jax.device_put(batch, self._of_batch)

    def _shape(self, needed: int, rows: int) -> Shape:
        """Returns the shape of a batch of so many rows with so many tokens in the longest."""
        length = next(length for length in self._row_lengths if length >= needed)
        most = _max_rows(length)
        num_rows = next(n for n in (1, -(-most // 4), most) if n * self.row_shards >= rows)
        return Shape(self.row_shards * num_rows, length)

    def _batch(self, texts: list[TokenIds], placement: Placement, shape: Shape | None = None) -> np.ndarray:
        """Returns tokens, segments, positions and sequences of a batch, int32 [4, b, t]."""
        sizes_n = np.array([len(text.ids) for text in texts])
        num_rows, length = shape or self._shape(int((placement.offset_n + sizes_n).max()), placement.num_rows)
        # For each token m of the texts, one after the other, its number inside its text and its place in the batch.
        within_m = np.arange(sizes_n.sum()) - np.repeat(np.cumsum(sizes_n) - sizes_n, sizes_n)
        place_m = np.repeat(placement.row_n * length + placement.offset_n, sizes_n) + within_m
        batch = np.zeros((4, num_rows * length), np.int32)
        batch[0, place_m] = np.fromiter(itertools.chain.from_iterable(text.ids for text in texts), np.int32)
        batch[1, place_m] = within_m >= np.repeat([text.len_a for text in texts], sizes_n)
        batch[2, place_m] = within_m
        batch[3, place_m] = np.repeat(placement.slot_n + 1, sizes_n)
        return batch.reshape(4, num_rows, length)


def local_mesh(sizes: MeshConfig, model: BertConfig) -> Mesh:
    """Returns the mesh of this process's devices. Raises BertjaxError where the sizes do not suit them or the model."""
    devices = local_devices()
    return make_mesh(*sizes.sizes(len(devices), model), devices=devices)


def delayed(items: Iterable[T], by: int) -> Iterator[T]:
    """Yields each item once `by` items after it have been made, or all have."""
    waiting: collections.deque[T] = collections.deque()
    for item in items:
        waiting.append(item)
        if len(waiting) > by:
            yield waiting.popleft()
    yield from waiting


@functools.cache
def _workers() -> ThreadPoolExecutor:
    """Returns the threads that batches on a CPU are computed in, one where XLA has no more itself."""
    asked = os.environ.get("NPROC", "")
    threads_of_xla = int(asked) if asked.isdigit() else num_cores()
    return ThreadPoolExecutor(min(_BATCHES_AT_ONCE_ON_CPU, max(1, threads_of_xla)), "batches")


def _on_host(computed: Callable[[], Array]) -> np.ndarray:
    """Waits for what is computed; raises BertjaxError where memory runs out."""
    with enough_memory(_LESS_MEMORY):
        return np.asarray(computed())


def _read_back(
    vectors: Vectors, result: Callable[[], np.ndarray], texts: list[TokenIds], chosen: np.ndarray, placement: Placement
) -> None:
    """Waits for a batch and puts its vectors where they belong."""
    array = result()
    if isinstance(vectors, np.ndarray):
        vectors[chosen] = array[placement.row_n, placement.slot_n]
        return
    for number, text, row, offset in zip(chosen, texts, placement.row_n, placement.offset_n, strict=True):
        vectors[number] = array[row, offset : offset + len(text.ids)].copy()


def unit(vectors_nd: np.ndarray) -> np.ndarray:
    """Returns vectors of length 1; those of zeros stay."""
    lengths_n1 = np.linalg.norm(vectors_nd, axis=-1, keepdims=True)
    return vectors_nd / np.where(lengths_n1 > 0, lengths_n1, 1)


def _tokens_per_batch() -> int:
    return _TOKENS_PER_BATCH if jax.default_backend() != "cpu" else _TOKENS_PER_BATCH_ON_CPU


def _max_rows(length: int) -> int:
    return max(1, _tokens_per_batch() // length)
