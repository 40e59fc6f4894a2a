"""The seam for what is learned: a batch becomes named losses and metrics, and the training loop knows no more."""

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

    metrics: Callable[[Params, Any, Array | None], Metrics]
    """Computes losses and metrics of a batch; dropout is on where there is a key for it."""

    loss_counts: Callable[[Any], Mapping[str, Array]]
    """Counts what each loss is the mean over, from the batch alone: the weights of `metrics`, before a batch is cut
    into parts."""

    cut_by_step: bool = True
    """Whether the step may cut a batch by rows and add up what comes of the parts. Where the losses are no sums over
    rows, `metrics` sees whole batches, and saves memory in a way of its own."""


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
