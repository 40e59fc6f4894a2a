"""Rotary positions (Su et al. 2021, arXiv:2104.09864, section 3.2.2)."""

from collections.abc import Sequence

import jax.numpy as jnp
from jax import Array


def apply_rotary(x_bhte: Array, positions_bt: Array, theta: float = 10_000.0) -> Array:
    """Turns each pair of features (i, i + e/2) of queries or keys by an angle that grows with the token's position.

    A product of two turned vectors depends on the difference of their positions alone.

    Args:
      x_bhte: queries or keys; e is even.
      positions_bt: int32, the token's place in its sequence.
      theta: base of the angles; the higher, the slower the features turn.
    """
    half = x_bhte.shape[-1] // 2
    speed_e = speeds(half, theta)
    angle_b1te = (positions_bt[:, :, None] * speed_e[None, None])[:, None]
    cos_b1te, sin_b1te = jnp.cos(angle_b1te).astype(x_bhte.dtype), jnp.sin(angle_b1te).astype(x_bhte.dtype)
    first, second = x_bhte[..., :half], x_bhte[..., half:]
    return jnp.concatenate((first * cos_b1te - second * sin_b1te, second * cos_b1te + first * sin_b1te), -1)


def biases_that_look(offset_h: Sequence[int], features: int, theta: float = 10_000.0) -> tuple[Array, Array]:
    """Returns biases of queries and keys, [h * e] each, by which each head looks at one place near a token's own.

    Before the heads have learned anything a token's score of the place at its head's offset is 1 above those of the
    places beside that one, and the further away, the lower the score. Only the pairs of features that turn by more than
    a tenth of a radian a place have a bias: slower ones hardly tell near places apart.

    Args:
      offset_h: for each head the place looked at: -1 is that of the token before, 1 that of the token after.
      features: e, of each head; even.
      theta: as of `apply_rotary`.
    """
    speed_e = speeds(features // 2, theta)
    fast_e = speed_e > 0.1
    size_e = fast_e * jnp.sqrt(features**0.5 / (fast_e * (1 - jnp.cos(speed_e))).sum())
    angle_he = jnp.asarray(offset_h)[:, None] * speed_e[None]
    query_he = jnp.concatenate((size_e, jnp.zeros_like(size_e)))[None].repeat(len(offset_h), 0)
    key_he = jnp.concatenate((size_e[None] * jnp.cos(angle_he), -size_e[None] * jnp.sin(angle_he)), -1)
    return query_he.reshape(-1), key_he.reshape(-1)


def speeds(half: int, theta: float) -> Array:
    """Radians that each pair of features turns by from one position to the next, [e/2]."""
    return theta ** (-jnp.arange(half) / half)
