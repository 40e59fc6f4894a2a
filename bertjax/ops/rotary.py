"""Rotary positions (Su et al. 2021, arXiv:2104.09864, section 3.2.2)."""

import jax.numpy as jnp
from jax import Array


def apply_rotary(x_bhte: Array, positions_bt: Array) -> Array:
    """Turns each pair of features (i, i + e/2) of queries or keys by an angle that grows with the token's position.

    A product of two turned vectors depends on the difference of their positions alone.

    Args:
      x_bhte: queries or keys; e is even.
      positions_bt: int32, the token's place in its sequence.
    """
    half = x_bhte.shape[-1] // 2
    speed_e = 10_000.0 ** (-jnp.arange(half) / half)
    angle_b1te = (positions_bt[:, :, None] * speed_e[None, None])[:, None]
    cos_b1te, sin_b1te = jnp.cos(angle_b1te).astype(x_bhte.dtype), jnp.sin(angle_b1te).astype(x_bhte.dtype)
    first, second = x_bhte[..., :half], x_bhte[..., half:]
    return jnp.concatenate((first * cos_b1te - second * sin_b1te, second * cos_b1te + first * sin_b1te), -1)
