"""Encodes a long stream of short texts: `python -m benchmarks.stress.streaming RUN TEXTS`."""

import itertools
import sys
from collections.abc import Iterator

import numpy as np

from bertjax.data.tokenizer.rules import NUM_SPECIAL
from bertjax.data.tokenizer.tokenizer import Tokenizer
from bertjax.inference.encoder import Encoder

_AT_ONCE = 4096


def texts(tokenizer: Tokenizer) -> Iterator[str]:
    """Yields texts without end, of up to 12 words each, all in the vocabulary."""
    rng = np.random.default_rng(0)
    while True:
        yield " ".join(tokenizer.tokens(rng.integers(NUM_SPECIAL, tokenizer.vocab_size, rng.integers(13))))


def main(run: str, count: str) -> None:
    encoder = Encoder.load(run)
    stream, done = itertools.islice(texts(encoder.tokenizer), int(count)), 0
    while some := list(itertools.islice(stream, _AT_ONCE)):
        vectors = encoder.encode(some)
        if not np.isfinite(vectors).all():
            raise SystemExit(f"a vector after text {done} is not finite")
        done += len(some)
        print(f"texts {done}/{count}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
