"""Figures of a server, as Prometheus reads them from /metrics."""

from collections.abc import Callable
from typing import Any

from bertjax.serving.batcher import Batch
from bertjax.serving.extra import needed

with needed():
    from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)


class Metrics:
    """Counts of one server, in a registry of its own.

    Args:
      waiting_tokens: tells how many tokens wait.
      ready: tells whether every model is loaded.
    """

    def __init__(self, waiting_tokens: Callable[[], int], ready: Callable[[], bool]):
        self._registry = CollectorRegistry()
        how: Any = {"registry": self._registry}
        self._requests = Counter("bertjax_requests", "Requests that were answered.", ["route", "status"], **how)
        self._seconds = Histogram(
            "bertjax_request_seconds", "From a request's head to its answer.", buckets=_SECONDS, **how
        )
        self._texts = Counter("bertjax_texts", "Texts that were computed.", **how)
        self._tokens = Counter("bertjax_tokens", "Tokens of these, special ones included.", **how)
        self._batches = Histogram("bertjax_batch_seconds", "What a batch took.", buckets=_SECONDS, **how)
        self._gone = Counter("bertjax_clients_gone", "Clients that left before their answer.", **how)
        Gauge("bertjax_waiting_tokens", "Tokens that wait for the devices.", **how).set_function(waiting_tokens)
        Gauge("bertjax_ready", "Whether every model is loaded and compiled.", **how).set_function(ready)

    def saw_batch(self, batch: Batch) -> None:
        """Counts a batch."""
        self._texts.inc(batch.num_texts)
        self._tokens.inc(batch.num_tokens)
        self._batches.observe(batch.seconds)

    def saw_request(self, route: str, status: int, seconds: float) -> None:
        """Counts an answer.

        Args:
          route: one of those that there are; what clients make up would be counted without end.
        """
        self._requests.labels(route, status).inc()
        self._seconds.observe(seconds)

    def saw_client_go(self) -> None:
        """Counts a client that left before its answer."""
        self._gone.inc()

    def text(self) -> bytes:
        """Returns all figures in Prometheus' text format."""
        return generate_latest(self._registry)
