"""What a batch of waiting texts goes through on the devices: the model, then pooling, a head, or words for masks."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from bertjax.data.reader import TokenIds
from bertjax.inference.engine import MASKS_PER_CALL, Engine, Recipe
from bertjax.serving.rows import Rows, Shapes

MOST_WORDS = 100  # that are told of a mask
Results = list[np.ndarray]  # of each text of a batch


class Piece(NamedTuple):
    """A text that waits, or a part of its masks."""

    text: TokenIds
    masks: tuple[int, ...] = ()  # whose words are guessed

    @property
    def size(self) -> int:
        """Number of tokens."""
        return len(self.text.ids)


class Program(Protocol):
    """A way from pieces to results; those that wait for the same one share batches."""

    def rows_for(self, piece: Piece) -> Rows:
        """Returns empty rows that this piece fits into."""

    def start(self, pieces: Sequence[Piece], rows: Rows) -> Callable[[], Results]:
        """Starts a batch of the pieces in these rows; what is returned waits for its results."""


class VectorProgram:
    """Vectors of texts or of their tokens, or the logits of a head, float32 [size] or [t, size] for each.

    Args:
      engine, recipe: as the library computes them.
      shapes: of the engine.

    Attributes:
      size: numbers of a vector.
    """

    def __init__(self, engine: Engine, recipe: Recipe, shapes: Shapes):
        self._engine, self._recipe, self._shapes = engine, recipe, shapes
        self.size = engine.vector_size(recipe)

    def rows_for(self, piece: Piece) -> Rows:
        """Returns empty rows that this piece fits into."""
        return self._shapes.rows_for(piece.size)

    def start(self, pieces: Sequence[Piece], rows: Rows) -> Callable[[], Results]:
        """Starts a batch; see `Program`."""
        placement = rows.placement
        texts = [piece.text for piece in pieces]
        result = self._engine.start(texts, placement, self._recipe, self._shapes.holding(rows))

        def read() -> Results:
            array = result()
            if not self._recipe.of_tokens:
                return list(array[placement.row_n, placement.slot_n])
            places = zip(placement.row_n, placement.offset_n, pieces, strict=True)
            return [array[row, offset : offset + piece.size].copy() for row, offset, piece in places]

        return read


class WordProgram:
    """Words for masks: the likeliest tokens of each mask and how likely they are, float64 [masks, 2, n] for each piece.

    Args:
      engine: with a head for words.
      shapes: of the engine.
      vocab_size: tokens that have a name.
    """

    def __init__(self, engine: Engine, shapes: Shapes, vocab_size: int):
        self._engine, self._shapes, self._vocab_size = engine, shapes, vocab_size

    def rows_for(self, piece: Piece) -> Rows:
        """Returns empty rows that this piece fits into."""
        return self._shapes.rows_for(piece.size, max_masks=MASKS_PER_CALL)

    def start(self, pieces: Sequence[Piece], rows: Rows) -> Callable[[], Results]:
        """Starts a batch; see `Program`."""
        texts, masks = [piece.text for piece in pieces], [list(piece.masks) for piece in pieces]
        result = self._engine.start_words(texts, rows.placement, masks, self._shapes.holding(rows))

        def read() -> Results:
            ends = np.cumsum([len(of_piece) for of_piece in masks])
            best_p2n = _best(result()[: ends[-1], : self._vocab_size])
            return [best_p2n[end - len(of_piece) : end] for end, of_piece in zip(ends, masks, strict=True)]

        return read


def _best(probabilities_pv: np.ndarray) -> np.ndarray:
    """Returns the likeliest tokens, best first, and their probabilities, [p, 2, n]: all would be a lot to keep."""
    most = min(MOST_WORDS, probabilities_pv.shape[1])
    chosen_pn = np.sort(np.argpartition(-probabilities_pv, most - 1, axis=1)[:, :most], axis=1)
    of_chosen_pn = np.take_along_axis(probabilities_pv, chosen_pn, 1)
    order_pn = np.argsort(-of_chosen_pn, axis=1, kind="stable")
    return np.stack([np.take_along_axis(array, order_pn, 1) for array in (chosen_pn, of_chosen_pn)], axis=1)


def warm_up(program: Program, shapes: Shapes) -> None:
    """Runs a program once in each shape, so that it is compiled for all."""
    for shape in shapes.all:
        rows = Rows(*shape, max_texts=1)
        filler = TokenIds([0] * shape.length, shape.length)
        pieces = [Piece(filler, masks=() if number else (0,)) for number in range(shape.num_rows)]
        for piece in pieces:
            rows.add(piece.size)
        program.start(pieces, rows)()
