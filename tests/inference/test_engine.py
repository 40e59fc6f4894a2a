"""Batches: which texts are in them, where the devices find them, and when they are read back."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any, get_args

import jax
import numpy as np
import pytest
from drawn_params import drawn_params

from bertjax.cli.encode import POOLINGS
from bertjax.config import BertConfig, MeshConfig
from bertjax.data.reader import TokenIds
from bertjax.errors import BertjaxError
from bertjax.inference.engine import _ALONE, Engine, Pooling, Recipe, delayed, local_mesh
from bertjax.models import sentence
from bertjax.models.bert import Bert
from bertjax.parallel.sharding import make_mesh

CONFIG = BertConfig(
    vocab_size=20, hidden_size=8, num_layers=1, num_heads=1, intermediate_size=8, max_position=40, dropout=0.5
)


def engine() -> Engine:
    params = drawn_params(Bert(CONFIG))
    return Engine(CONFIG, params, "float32", local_mesh(MeshConfig(), CONFIG))


def test_batches_are_read_back_delayed() -> None:
    made: list[int] = []
    items = (made.append(number) or number for number in range(5))  # type: ignore[func-returns-value]
    seen = [(number, len(made)) for number in delayed(items, 2)]
    assert seen == [(0, 3), (1, 4), (2, 5), (3, 5), (4, 5)] and list(delayed([], 2)) == []


def test_every_text_is_in_one_batch_at_one_place() -> None:
    rng, ours = np.random.default_rng(0), engine()
    texts = [TokenIds([2, *rng.integers(5, 20, rng.integers(0, 38)).tolist(), 3], 2) for _ in range(3000)]
    seen = np.zeros(len(texts), int)
    batches = list(ours._batches(texts))
    for chosen, placement in batches:
        seen[chosen] += 1
        tokens_bt, segments_bt, positions_bt, sequences_bt = ours._batch([texts[n] for n in chosen], placement)
        assert len(tokens_bt) % ours.row_shards == 0
        assert (sequences_bt > 0).sum() == sum(len(texts[n].ids) for n in chosen)  # so that no two overlap
        for number, row, offset, slot in list(zip(chosen, *placement, strict=True))[::50]:
            ids = texts[number].ids
            here = row, slice(offset, offset + len(ids))
            assert tokens_bt[here].tolist() == ids and positions_bt[here].tolist() == list(range(len(ids)))
            assert segments_bt[here].tolist() == [0, 0] + [1] * (len(ids) - 2)
            assert set(sequences_bt[here]) == {slot + 1}
    assert (seen == 1).all() and len(batches) > 2


def test_windows_keep_to_themselves() -> None:
    windows = [[TokenIds([2, 7, 3], 3), TokenIds([2, 3], 2)], [], [TokenIds([2, 9, 8, 3], 4)]]
    ours = engine()
    together = list(ours.vectors(iter(windows), Recipe(("mean",))))
    assert [np.shape(vectors) for vectors in together] == [(2, 8), (0, 8), (1, 8)]
    np.testing.assert_allclose(together[2][0], ours.token_vectors(windows[2][0]).mean(0), rtol=1e-4, atol=1e-5)


def test_on_a_cpu_two_batches_are_computed_at_once_but_for_the_first_of_a_program() -> None:
    ours = Engine(CONFIG, drawn_params(Bert(CONFIG)), "float32", make_mesh(devices=jax.devices()[:1]))
    texts = [TokenIds([2, *[7] * 37, 3], 2)] * 650  # in thirteen batches of one shape
    alone = [ours.token_vectors(text).mean(0) for text in texts[:1]]
    forward, both, at_work, seen = ours.forward, threading.Barrier(2), threading.Semaphore(2), []

    def watched(params: Any, batch: Any) -> jax.Array:
        new = batch.shape not in [shape for shape, _ in seen]
        seen.append((batch.shape, threading.get_ident()))
        assert at_work.acquire(blocking=False)
        if not new:
            both.wait(timeout=20)
        result = forward(params, batch)
        at_work.release()
        return result

    ours.forward, ours._workers = watched, ThreadPoolExecutor(2)
    (vectors,) = ours.vectors([texts], Recipe(("mean",)))
    np.testing.assert_allclose(vectors, np.repeat(alone, len(texts), 0), rtol=1e-4, atol=1e-5)
    assert len(seen) == 13 and len({shape for shape, _ in seen}) == 1 and len({thread for _, thread in seen}) == 2


@pytest.mark.parametrize("devices", [1, 2])
def test_too_little_memory_is_one_line(devices: int) -> None:
    ours = Engine(CONFIG, drawn_params(Bert(CONFIG)), "float32", make_mesh(devices=jax.devices()[:devices]))

    def exhausted(*_: Any) -> jax.Array:
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Error allocating device buffer: allocating 4000000 bytes")

    ours.forward = exhausted
    text = TokenIds([2, 7, 3], 3)
    for computed in (lambda: list(ours.vectors([[text]], Recipe(("mean",)))), lambda: ours.token_vectors(text)):
        with pytest.raises(BertjaxError, match="^there is not enough memory on cpu, where 4.0 MB .*; give shorter"):
            computed()


def test_kinds_of_pooling_have_the_same_names_everywhere() -> None:
    assert POOLINGS == get_args(Pooling) == (*sentence.POOLINGS, "tokens")


def test_several_processes_place_their_batches_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    text, ours = TokenIds([2, 7, 3], 3), engine()
    alone = ours.token_vectors(text)
    monkeypatch.setattr(jax, "process_count", lambda: 2)  # where JAX refuses to split numpy's arrays
    placed = ours._placed(ours._batch([text], _ALONE))
    assert isinstance(placed, jax.Array) and placed.addressable_shards[0].data.shape == (4, 1, 16)
    np.testing.assert_array_equal(ours.token_vectors(text), alone)
