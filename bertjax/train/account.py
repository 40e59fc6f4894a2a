"""The account of a run's speed and memory, a line of timings.jsonl when it ends."""

import logging
import time
from collections.abc import Callable
from typing import Any

import jax

from bertjax.config import Config
from bertjax.models.operations import sequence_lengths, training_operations
from bertjax.objectives.objective import BatchStream
from bertjax.ops.peak import product_rate
from bertjax.runs.checkpoints import reason_of
from bertjax.runs.memory import peak_memory
from bertjax.train.progress import Progress, Work

_logger = logging.getLogger(__name__)


def work_of(config: Config, batches: BatchStream) -> Work:
    """Returns the work of a batch, and measures the devices within a second."""
    batch = next(batches.first_epoch())
    sequences = sequence_lengths(batch.sequences_bt).size
    device, peak = jax.local_devices()[0], None
    if device.platform != "cpu" or jax.process_count() == 1:  # processes may share the cores of a machine
        devices = 1 if device.platform == "cpu" else jax.device_count()
        peak = round(devices * product_rate(config.train.precision, device))
    tokens = int((batch.sequences_bt > 0).sum())
    return Work(tokens / sequences, training_operations(config.model, batch) / sequences, peak)


def account(work: Callable[[], Work] | None, progress: Progress, *, began: float) -> dict[str, Any]:
    """Returns what this process of a run has used, and how fast its devices, with those of the others, were.

    Args:
      work: measures what a sequence takes and what the devices could do; None where there is no time for it.
      began: when the process began, in seconds of `time.monotonic`.

    Returns:
      `step`, `seconds`, `host_bytes`, and where they can be told `device_bytes`, `tokens_per_second`,
      `operations_per_second` and, of matrix products on all devices, `peak_operations_per_second`.
    """
    told: dict[str, Any] = {
        "step": progress.step,
        "seconds": round(time.monotonic() - began, 3),
        "host_bytes": peak_memory(),
        "device_bytes": (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use"),
    }
    if progress.pairs_per_second and work is not None:
        try:
            measured = work()
            told["tokens_per_second"] = round(measured.tokens * progress.pairs_per_second, 1)
            told["operations_per_second"] = round(measured.operations * progress.pairs_per_second)
            told["peak_operations_per_second"] = measured.peak
        except Exception as error:  # whatever it is: the run has trained
            _logger.warning(f"how fast the devices could be is not measured ({reason_of(error)})")
    return {name: value for name, value in told.items() if value is not None}
