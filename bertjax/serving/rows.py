"""Rows of a batch that texts are put into one at a time, and the few shapes that such batches have."""

import jax
import numpy as np

from bertjax.data.batching.packing import Placement
from bertjax.inference.engine import Engine, Shape

_LONGEST_PACKED = 128  # tokens of a row that texts share; longer ones have longer rows, whose attention costs more
_SHORTEST = 16
# On a CPU a token costs the same in a small batch, which is the sooner done; an accelerator wants many at once.
_TOKENS, _TOKENS_ON_CPU = 16384, 512


class Rows:
    """Rows of equal length, filled in the order in which texts come: each goes into the first row that has room.

    Args:
      num_rows: how many there may be.
      length: tokens of a row.
      max_texts: texts in a row.
      max_masks: masks in all rows.
    """

    def __init__(self, num_rows: int, length: int, *, max_texts: int, max_masks: int = 0):
        self._num_rows, self._length, self._max_texts, self._masks_left = num_rows, length, max_texts, max_masks
        self._used: list[int] = []
        self._texts: list[int] = []
        self._places: list[tuple[int, int, int]] = []

    def add(self, size: int, masks: int = 0) -> bool:
        """Takes a text of so many tokens and masks; returns whether there was room for it."""
        if masks > self._masks_left:
            return False
        for row, used in enumerate(self._used):
            if used + size <= self._length and self._texts[row] < self._max_texts:
                break
        else:
            if len(self._used) == self._num_rows or size > self._length:
                return False
            row, used = len(self._used), 0
            self._used.append(0)
            self._texts.append(0)
        self._places.append((row, used, self._texts[row]))
        self._used[row] += size
        self._masks_left -= masks
        self._texts[row] += 1
        return True

    @property
    def max_tokens(self) -> int:
        """How many tokens there is room for."""
        return self._num_rows * self._length

    @property
    def full(self) -> bool:
        """Whether there is no room for a text of two tokens."""
        return len(self._used) == self._num_rows and min(self._used) + 2 > self._length

    @property
    def longest(self) -> int:
        """Tokens of the fullest row."""
        return max(self._used)

    @property
    def placement(self) -> Placement:
        """Where each text is, in the order in which they came."""
        return Placement(*np.array(self._places).T)


class Shapes:
    """The shapes of an engine's batches, each of which is compiled before a server is ready.

    Args:
      engine: whose longest text and devices they suit.
      max_length: tokens of the longest text.
      tokens: of the largest batch, a device; by default as the devices like it.
    """

    def __init__(self, engine: Engine, max_length: int, tokens: int | None = None):
        self._engine, cpu = engine, jax.default_backend() == "cpu"
        tokens = tokens or (_TOKENS_ON_CPU if cpu else _TOKENS)
        max_length = min(max_length, engine.config.max_position)
        self._lengths = [min(_LONGEST_PACKED, max_length)]
        while self._lengths[-1] < max_length:
            self._lengths.append(min(2 * self._lengths[-1], max_length))
        shards, found = engine.row_shards, set()
        short = _SHORTEST
        while short < self._lengths[0]:
            found.add(Shape(shards, short))
            short *= 2
        self._most: dict[int, int] = {}
        for length in self._lengths:
            most = max(1, tokens // length)
            self._most[length] = shards * most
            rows = most
            while length == self._lengths[0] and rows > 1:  # longer ones are seldom: those fill few rows or all
                found.add(Shape(shards * rows, length))
                rows //= 2 if cpu else 4
            found |= {Shape(shards, length), Shape(shards * most, length)}
        self.all = sorted(found, key=lambda shape: (shape.num_rows * shape.length, shape.num_rows))

    def rows_for(self, size: int, *, max_masks: int = 0) -> Rows:
        """Returns empty rows that a text of so many tokens fits into."""
        length = next(length for length in self._lengths if length >= size)
        max_texts = self._engine.max_texts(length)
        return Rows(self._most[length], length, max_texts=max_texts, max_masks=max_masks)

    def holding(self, rows: Rows) -> Shape:
        """Returns the smallest shape that holds what is in the rows."""
        num_rows, longest = rows.placement.num_rows, rows.longest
        return next(shape for shape in self.all if shape.num_rows >= num_rows and shape.length >= longest)
