"""Continuous batching: texts of many requests wait in one line, from which one thread fills batch after batch.

Each request gives one text at a time in turn, so that a short one does not wait behind a long one. What is computed is
decided when the devices are free, from all that waits then.
"""

import asyncio
import collections
import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax

from bertjax.serving.programs import Piece, Program, Results
from bertjax.serving.rows import Rows

_LOOKED_AT = 256  # requests that are asked for a text to fill a batch's last gaps
_IN_FLIGHT_AT_MOST = 2  # batches
_logger = logging.getLogger(__name__)


class Overloaded(Exception):
    """Too much waits.

    Attributes:
      seconds: after which there should be room.
    """

    def __init__(self, seconds: int):
        super().__init__(f"too many texts wait; try again in {seconds} s")
        self.seconds = seconds


class Failed(Exception):
    """The devices could not compute a batch."""


class Batch(NamedTuple):
    """What is computed at once, as those see it who count."""

    seconds: float
    num_texts: int
    num_tokens: int


class _Job:
    """The texts of a request, which wait or are computed."""

    def __init__(self, program: Program, pieces: Sequence[Piece], future: "asyncio.Future[Results]"):
        self.program, self.pieces, self.future = program, pieces, future
        self.next = 0  # the first piece that waits
        self.left = len(pieces)  # that have no result yet
        self.results: Results = [None] * len(pieces)  # type: ignore[list-item]
        self.error: Exception | None = None


_Taken = list[tuple[_Job, int]]


class Batcher:
    """The line of waiting texts, and the thread that has the devices.

    Args:
      max_tokens: that may wait; past it a request is refused, unless nothing waits at all.
      saw: is told of each batch, in that thread.
    """

    def __init__(self, max_tokens: int, saw: Callable[[Batch], None] = lambda batch: None):
        self.max_tokens, self.waiting_tokens, self._saw = max_tokens, 0, saw
        self._waiting: collections.deque[_Job] = collections.deque()
        self._changed, self._ended = threading.Condition(), False
        self._tokens_per_second = 0.0
        # An accelerator must not wait for the host, so a batch is begun while another is under way. On a CPU both share
        # the cores, and what is begun half empty would be fuller, and sooner done, after the other.
        self._only_full_beside_another = jax.default_backend() == "cpu"
        self._thread = threading.Thread(target=self._work, name="devices", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def end(self) -> None:
        """Ends the thread after what it computes now; what waits is given up."""
        with self._changed:
            self._ended = True
            self._changed.notify()
        self._thread.join()

    async def run(self, program: Program, pieces: Sequence[Piece]) -> Results:
        """Returns the result of each piece; cancelled, it gives up those that wait.

        Raises:
          Overloaded: too many tokens wait.
          Failed: the devices could not compute it.
        """
        if not pieces:
            return []
        tokens, job = sum(piece.size for piece in pieces), _Job(program, pieces, asyncio.Future())
        with self._changed:
            if self.waiting_tokens and self.waiting_tokens + tokens > self.max_tokens:
                raise Overloaded(self._seconds_to_wait())
            self.waiting_tokens += tokens
            self._waiting.append(job)
            self._changed.notify()
        try:
            return await job.future
        finally:
            if not job.future.done() or job.future.cancelled():
                self._give_up(job)

    def _seconds_to_wait(self) -> int:
        rate = self._tokens_per_second
        return min(60, max(1, math.ceil(self.waiting_tokens / rate))) if rate else 1

    def _give_up(self, job: _Job) -> None:
        with self._changed:
            if job in self._waiting:
                self._waiting.remove(job)
                self.waiting_tokens -= sum(piece.size for piece in job.pieces[job.next :])

    # In the thread that has the devices.

    def _work(self) -> None:
        in_flight: collections.deque[tuple[_Taken, Callable[[], Results], float]] = collections.deque()
        while True:
            taken: _Taken = []
            with self._changed:
                while not (self._waiting or in_flight or self._ended):
                    self._changed.wait()
                if self._ended:
                    return
                if self._waiting and len(in_flight) < _IN_FLIGHT_AT_MOST and (not in_flight or self._worth_beginning()):
                    program, taken, rows = self._take()
            if taken:
                began = time.perf_counter()
                in_flight.append((taken, self._begun(program, taken, rows), began))
            if len(in_flight) == _IN_FLIGHT_AT_MOST or not taken:
                self._finish(*in_flight.popleft())

    def _worth_beginning(self) -> bool:
        """Returns whether a batch of what waits should be begun beside another one."""
        if not self._only_full_beside_another:
            return True
        first = self._waiting[0]
        return self.waiting_tokens >= first.program.rows_for(first.pieces[first.next]).max_tokens

    def _take(self) -> tuple[Program, _Taken, Rows]:
        """Takes texts for a batch off the line: of each request one, and again, until the rows are full."""
        first = self._waiting[0]
        program, rows = first.program, first.program.rows_for(first.pieces[first.next])
        taken: _Taken = []
        passed_over: list[_Job] = []
        while self._waiting and not rows.full and len(passed_over) < _LOOKED_AT:
            job = self._waiting.popleft()
            piece = job.pieces[job.next]
            if job.program is not program or not rows.add(piece.size, len(piece.masks)):
                passed_over.append(job)
                continue
            taken.append((job, job.next))
            self.waiting_tokens -= piece.size
            job.next += 1
            if job.next < len(job.pieces):
                self._waiting.append(job)
        self._waiting.extendleft(reversed(passed_over))  # they come first the next time
        return program, taken, rows

    def _begun(self, program: Program, taken: _Taken, rows: Rows) -> Callable[[], Results]:
        """Starts a batch; an error is kept until it is read."""
        try:
            return program.start([job.pieces[number] for job, number in taken], rows)
        except Exception as error:
            kept = error

            def fail() -> Results:
                raise kept

            return fail

    def _finish(self, taken: _Taken, read: Callable[[], Results], began: float) -> None:
        """Waits for a batch and hands its results over."""
        done = []
        try:
            for (job, number), result in zip(taken, read(), strict=True):
                job.results[number] = result
                job.left -= 1
                if not job.left:
                    done.append(job)
        except Exception as error:  # such as a device without memory; the next batch may do
            _logger.warning(f"a batch failed: {type(error).__name__}: {error}")
            done = list(dict.fromkeys(job for job, _ in taken))
            for job in done:
                job.error = Failed(f"the batch could not be computed ({type(error).__name__})")
                self._give_up(job)
        seconds, num_tokens = time.perf_counter() - began, sum(job.pieces[number].size for job, number in taken)
        rate = num_tokens / seconds
        self._tokens_per_second = 0.9 * self._tokens_per_second + 0.1 * rate if self._tokens_per_second else rate
        if done:
            done[0].future.get_loop().call_soon_threadsafe(_hand_over, done)
        self._saw(Batch(seconds, len(taken), num_tokens))


def _hand_over(jobs: list[_Job]) -> None:
    for job in jobs:
        if job.future.done():
            continue
        if job.error is not None:
            job.future.set_exception(job.error)
        else:
            job.future.set_result(job.results)
