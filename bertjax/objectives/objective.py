"""The seam for what is learned: a batch becomes named losses and metrics, and the training loop knows no more."""

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol

from jax import Array

from bertjax.objectives.metrics import Metrics

Params = dict[str, Any]


class Objective(NamedTuple):
    """A task to learn, as plain functions, each of which can be jitted.

    Metrics come undivided: a loss is named `{head}_loss`, in nats, an accuracy `{head}_accuracy`. Over a mesh the
    functions see batches and parameters that are spread as `parallel.sharding` says.
    """

    heads: Mapping[str, str]
    """What people call each head, by its name in the metrics, such as {"nsp": "NSP"}."""

    loss_weights: Mapping[str, float]
    """What each loss counts for, by its name among the metrics, in the sum that gradients are taken of."""

    init: Callable[[Array], Params]
    """Makes fresh parameters from a `jax.random.key`: a nested dict of float32 arrays."""

    metrics: Callable[..., Metrics]
    """Computes losses and metrics of parameters, a batch and a key; dropout is on where there is one. It takes
    `constants` too, by that name, where the objective has some."""

    loss_counts: Callable[[Any], Mapping[str, Array]]
    """Counts what each loss is the mean over, from the batch alone: the weights of `metrics`, before a batch is cut
    into parts."""

    cut_by_step: bool = True
    """Whether the step may cut a batch by rows and add up what comes of the parts. Where the losses are no sums over
    rows, `metrics` sees whole batches, and saves memory in a way of its own."""

    constants: Params | None = None
    """Parameters over the mesh that nothing changes, such as a teacher's: they are inputs of the programs, in no state
    and in no checkpoint."""

    aside: tuple[str, ...] = ()
    """Parts of the parameters that are learned to learn the others by, and left behind with the run's checkpoints."""

    def holding(self, constants: Params | None) -> "Objective":
        """Returns the objective with its constants, as they are inside a program, given to `metrics`."""
        if constants is None:
            return self
        return self._replace(metrics=functools.partial(self.metrics, constants=constants), constants=None)


class Bound:
    """A jitted program whose last arguments are given already.

    Those are inputs as the others are: a function that closes over arrays would have them written into its program.
    """

    def __init__(self, program: Any, *last: Any):
        self._program, self._last = program, last

    def __call__(self, *arguments: Any) -> Any:
        return self._program(*arguments, *self._last)

    def lower(self, *arguments: Any) -> Any:
        """Does what a jitted function's `lower` does."""
        return self._program.lower(*arguments, *self._last)


class BatchStream(Protocol):
    """Batches as a pure function of the step: NamedTuples of arrays whose first axis is the rows.

    Rows of zeros, which are added where devices cannot share the rows evenly, must have weight 0.
    """

    batch_size: int
    """Sequences in a batch."""

    num_rows: int
    """Rows of a whole batch (b)."""

    @property
    def num_sequences(self) -> int:
        """Sequences in an epoch."""

    def batch_at(self, step: int, rows: range | None = None) -> Any:
        """Makes the batch of a step, counted from 0, or some consecutive rows of it."""

    def num_rows_at(self, step: int) -> int:
        """Returns the number of rows in the batch of a step."""

    def batch_size_at(self, step: int) -> float:
        """Returns the number of sequences in the batch of a step, on average."""

    def first_epoch(self, rows: range | None = None) -> Iterator[Any]:
        """Yields each sequence once, or some consecutive rows of each batch."""
