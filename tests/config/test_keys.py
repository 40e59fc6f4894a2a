"""Keys in dotted form."""

from bertjax.config import Config, TrainConfig
from bertjax.config.keys import flat


def test_flat_names_every_key():
    values = flat(Config(seed=7, train=TrainConfig(steps=9)))
    assert (values["seed"], values["train.steps"], values["model.vocab_size"]) == (7, 9, None)
    assert not any(isinstance(value, dict) for value in values.values())
