"""The line of waiting texts: who goes first, who is sent away, and what becomes of those whose client has gone."""

import asyncio
import threading
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from bertjax.data.reader import TokenIds
from bertjax.serving.batcher import Batch, Batcher, Failed, Overloaded
from bertjax.serving.programs import Piece, Results
from bertjax.serving.rows import Rows


def piece(size: int, first: int = 0) -> Piece:
    return Piece(TokenIds([first, *range(1, size)], size))


class Sums:
    """Adds a text's ids up, in batches of two rows of eight tokens, each read when it is let; keeps their firsts."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.let, self.began = threading.Semaphore(0), threading.Semaphore(0)

    def rows_for(self, piece: Piece) -> Rows:
        return Rows(2, 8, max_texts=4)

    def start(self, pieces: Sequence[Piece], rows: Rows) -> Callable[[], Results]:
        self.batches.append([piece.text.ids[0] for piece in pieces])
        self.began.release()

        def read() -> Results:
            assert self.let.acquire(timeout=10)
            if pieces[0].text.ids[0] == 666:
                raise MemoryError
            return [np.array(sum(piece.text.ids)) for piece in pieces]

        return read


async def began(program: Sums, batches: int = 2) -> None:
    """Waits until as many have begun: by default as many as there ever are at once."""
    for _ in range(batches):
        await asyncio.to_thread(program.began.acquire)


def with_batcher(play: Callable[[Batcher, Sums], object], max_tokens: int = 1000) -> tuple[Sums, list[Batch]]:
    saw: list[Batch] = []
    program, batcher = Sums(), Batcher(max_tokens, saw.append)
    batcher.start()
    try:
        asyncio.run(play(batcher, program))  # type: ignore[arg-type]
    finally:
        program.let.release(100)
        batcher.end()
    return program, saw


def test_a_short_request_does_not_wait_for_a_long_one() -> None:
    async def play(batcher: Batcher, program: Sums) -> None:
        long = asyncio.ensure_future(batcher.run(program, [piece(8, number) for number in range(6)]))
        await began(program)
        short = asyncio.ensure_future(batcher.run(program, [piece(4, 100)]))
        await asyncio.sleep(0)
        program.let.release(3)
        assert [int(one) for one in await short] == [106]
        assert not long.done()
        program.let.release(9)
        assert [int(one) for one in await long] == [28 + number for number in range(6)]

    program, saw = with_batcher(play)
    assert program.batches[:3] == [[0, 1], [2, 3], [4, 100]]  # the next has it, beside the long one's next
    assert sum(batch.num_texts for batch in saw) == 7 and sum(batch.num_tokens for batch in saw) == 52


@pytest.mark.parametrize(
    ("backend", "batches"), [("cpu", [[1, 2], [3, 4]]), ("gpu", [[1, 2], [3], [4]])], ids=["cpu", "gpu"]
)
def test_a_half_empty_batch_is_begun_beside_another_on_accelerators_alone(
    backend: str, batches: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def play(batcher: Batcher, program: Sums) -> None:
        first = asyncio.ensure_future(batcher.run(program, [piece(8, 1), piece(8, 2), piece(4, 3)]))
        await began(program, 2 if backend == "gpu" else 1)
        second = asyncio.ensure_future(batcher.run(program, [piece(4, 4)]))
        await asyncio.sleep(0)
        program.let.release(9)
        assert len(await first) == 3 and len(await second) == 1

    monkeypatch.setattr("jax.default_backend", lambda: backend)
    assert with_batcher(play)[0].batches == batches


def test_past_the_bound_requests_are_sent_away_and_texts_of_a_client_that_has_gone_are_dropped() -> None:
    async def play(batcher: Batcher, program: Sums) -> None:
        first = asyncio.ensure_future(batcher.run(program, [piece(8, number) for number in range(1, 5)]))
        await began(program)
        gone = asyncio.ensure_future(batcher.run(program, [piece(8, 5)] * 4))
        await asyncio.sleep(0)
        assert batcher.waiting_tokens == 32
        with pytest.raises(Overloaded, match="try again in 1 s"):
            await batcher.run(program, [piece(8)])
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        assert batcher.waiting_tokens == 0
        last = asyncio.ensure_future(batcher.run(program, [piece(8, 6)]))
        await asyncio.sleep(0)
        program.let.release(9)
        assert len(await first) == 4 and len(await last) == 1

    assert with_batcher(play, max_tokens=35)[0].batches == [[1, 2], [3, 4], [6]]


def test_a_batch_that_fails_is_told_of_and_the_next_one_is_computed() -> None:
    async def play(batcher: Batcher, program: Sums) -> None:
        program.let.release(99)
        with pytest.raises(Failed, match="MemoryError"):
            await batcher.run(program, [piece(8, 666)] * 9)
        assert batcher.waiting_tokens == 0  # the rest is not tried
        assert [int(one) for one in await batcher.run(program, [piece(3)])] == [3]
        assert await batcher.run(program, []) == []

    with_batcher(play)


def test_requests_of_other_programs_have_batches_of_their_own() -> None:
    other = Sums()
    other.let.release(9)

    async def play(batcher: Batcher, program: Sums) -> None:
        first = asyncio.ensure_future(batcher.run(program, [piece(8, 1)] * 4))
        await began(program)
        rest = [batcher.run(one, [piece(4, number)]) for number, one in enumerate((other, program, other, program), 2)]
        waiting = [asyncio.ensure_future(one) for one in rest]
        await asyncio.sleep(0)
        program.let.release(9)
        assert [int(one[0]) for one in await asyncio.gather(first, *waiting)] == [29, 8, 9, 10, 11]

    assert with_batcher(play)[0].batches == [[1, 1], [1, 1], [3, 5]] and other.batches == [[2, 4]]


def test_texts_in_rows_neither_overlap_nor_outgrow_them() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        rows, taken, sizes = Rows(3, 32, max_texts=5), [], rng.integers(1, 33, 30).tolist()
        taken = [size for size in sizes if rows.add(size)]
        row_n, offset_n, slot_n = rows.placement
        used = np.zeros((3, 32), int)
        for size, row, offset in zip(taken, row_n, offset_n, strict=True):
            used[row, offset : offset + size] += 1
        assert used.max() == 1 and used.sum() == sum(taken) and rows.longest == used.sum(1).max()
        assert len(set(zip(row_n.tolist(), slot_n.tolist(), strict=True))) == len(taken) and slot_n.max() < 5
