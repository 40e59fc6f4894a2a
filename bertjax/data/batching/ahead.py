"""Things made while the one before is used."""

import collections
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def made_ahead(make: Callable[[int], T], numbers: Iterable[int]) -> Generator[T, None, None]:
    """Yields `make(number)` for each number, in their order; a thread makes the next one meanwhile.

    Close it where it is left before its end: the thread is waited for. What `make` raises comes when its turn has come.
    """
    with ThreadPoolExecutor(1, "ahead") as thread:
        waiting = collections.deque[Future[T]]()
        for number in numbers:
            waiting.append(thread.submit(make, number))
            if len(waiting) > 1:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
