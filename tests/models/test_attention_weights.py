"""What each token looks at."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawn_params import drawn_params

from bertjax.config import BertConfig
from bertjax.models.bert import Bert

CONFIG = BertConfig(25, hidden_size=16, num_layers=2, num_heads=2, intermediate_size=32, max_position=8, dropout=0.1)


@pytest.mark.parametrize("changes", [{}, {"positions": "rotary", "norm": "pre"}], ids=["bert", "modern"])
def test_weights_are_those_the_model_takes_its_means_by(changes: dict) -> None:
    model = Bert(BertConfig(**{**CONFIG.__dict__, **changes}))
    params = drawn_params(model)
    sequences_bt = jnp.array([[1, 1, 1, 2, 2, 0]])
    tokens_bt, positions_bt = jnp.array([[5, 6, 7, 8, 9, 0]]), jnp.array([[0, 1, 2, 0, 1, 0]])

    @jax.jit
    def look(params: dict, tokens_bt: jax.Array) -> tuple[jax.Array, jax.Array]:
        rows = (tokens_bt, 0 * tokens_bt, positions_bt, sequences_bt)
        weights = model.apply({"params": params}, *rows, method="attention_weights")
        return weights, model.apply({"params": params}, *rows, method="encode")

    weights_lbhts, encoded_btd = look(params, tokens_bt)
    assert weights_lbhts.shape == (2, 1, 2, 6, 6)
    np.testing.assert_allclose(weights_lbhts[:, :, :, :5].sum(-1), 1, rtol=1e-5)
    same_ts = np.equal.outer(*np.asarray(sequences_bt)[[0, 0]])[:5]
    assert (weights_lbhts[0, 0, 0, :5][~same_ts] == 0).all() and (weights_lbhts[..., :5, :][..., same_ts] > 0).all()
    other_lbhts, other_btd = look(params, tokens_bt.at[0, 1].set(20))
    assert not np.allclose(weights_lbhts[0, 0, :, 0, :3], other_lbhts[0, 0, :, 0, :3])
    np.testing.assert_array_equal(weights_lbhts[:, :, :, 3:5], other_lbhts[:, :, :, 3:5])  # the neighbour's
    np.testing.assert_array_equal(encoded_btd[:, 3:5], other_btd[:, 3:5])
