"""The next thing is made while one is used, in order, and no thread is left behind."""

import itertools
import threading

import pytest

from bertjax.data.batching.ahead import made_ahead


def test_they_come_in_order_and_the_next_one_is_made_meanwhile() -> None:
    made, next_is_made = list[int](), threading.Event()

    def make(number: int) -> int:
        made.append(number)
        if number == 2:
            next_is_made.set()
        return number * number

    squares = made_ahead(make, range(1, 5))
    assert next(squares) == 1
    assert next_is_made.wait(10)  # nobody has asked for it
    assert [*squares] == [4, 9, 16] and made == [1, 2, 3, 4]
    assert [*made_ahead(make, [])] == []


def test_a_failure_comes_in_its_turn() -> None:
    def make(number: int) -> float:
        return 1 / (2 - number)

    halves = made_ahead(make, range(5))
    assert [next(halves), next(halves)] == [0.5, 1]
    with pytest.raises(ZeroDivisionError):
        next(halves)


def test_no_thread_is_left_when_it_is_closed() -> None:
    numbers = made_ahead(lambda number: number, itertools.count())
    assert next(numbers) == 0
    assert any(thread.name.startswith("ahead") for thread in threading.enumerate())
    numbers.close()
    assert not any(thread.name.startswith("ahead") for thread in threading.enumerate())
