"""A growing batch's share in each step, by hand and against counting."""

import itertools

import pytest

from bertjax.data.batching.shares import share_at


def test_named_steps() -> None:
    shares = [share_at(step, 16, 27) for step in range(30)]
    eighths = [(0, 0), (0, 2), (0, 4), (0, 6), (0, 8), (0, 10), (0, 12), (0, 14), (1, 0)]
    quarters = [(batch, row) for batch in (2, 3) for row in (0, 4, 8, 12)] + [(4, 0)]
    halves = [(batch, row) for batch in (5, 6, 7, 8) for row in (0, 8)] + [(9, 0)]
    assert [(share.batch, share.rows.start) for share in shares] == eighths + quarters + halves + [
        (10, 0),
        (11, 0),
        (12, 0),
    ]
    assert [len(share.rows) for share in shares] == 9 * [2] + 9 * [4] + 9 * [8] + 3 * [16]


def test_without_warm_up_steps_have_whole_batches() -> None:
    assert [share_at(step, 5, 0) for step in range(4)] == [(step, range(5)) for step in range(4)]


@pytest.mark.parametrize("num_rows", [1, 2, 3, 7, 9, 23, 64])
@pytest.mark.parametrize("warmup_steps", [1, 2, 3, 10, 100])
def test_no_row_comes_twice_no_step_is_empty_and_no_batch_is_passed_over(num_rows: int, warmup_steps: int) -> None:
    shares = [share_at(step, num_rows, warmup_steps) for step in range(warmup_steps + 3)]
    rows = [(share.batch, row) for share in shares for row in share.rows if row < num_rows]
    assert len(set(rows)) == len(rows) and rows == sorted(rows)
    assert all(share.rows.start < num_rows for share in shares)
    assert {share.batch for share in shares} == set(range(shares[-1].batch + 1))
    sizes = [len(share.rows) for share in shares]
    assert sizes == sorted(sizes) and sizes[-3:] == [num_rows] * 3
    assert len(list(itertools.groupby(sizes))) <= 4
