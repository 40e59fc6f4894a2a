"""From text to batches. numpy only: nothing in this package imports jax."""
