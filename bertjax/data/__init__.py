"""Text, tokenizers, corpora and batches. Nothing in this package imports jax."""
