"""A tiny BERT of elsewhere, in a Hugging Face folder."""

from pathlib import Path

import jax
import numpy as np
from drawn_params import drawn_params

from bertjax.config import BertConfig
from bertjax.data.tokenizer.rules import Rules
from bertjax.data.tokenizer.tokenizer import Tokenizer
from bertjax.hub.folder import write_folder
from bertjax.models.bert import Bert

ODD = ("</s>", "<unk>", "<s>", "<sep/>", "<?>")
PIECES = ["the", "near", "sees", "a", ".", "n", "##o", "##u", "##n", *(f"##{digit}" for digit in range(10))]
MODEL = BertConfig(
    vocab_size=40,  # rows of padding after the tokens
    hidden_size=16,
    num_layers=1,
    num_heads=2,
    intermediate_size=24,
    max_position=32,
    dropout=0.3,
    hidden_act="gelu_tanh",
)


def write_odd_bert(folder: Path) -> Path:
    """Writes one whose special tokens have odd names and odd numbers."""
    tokens = [PIECES[0], ODD[3], ODD[0], *PIECES[1:5], ODD[4], ODD[2], *PIECES[5:], ODD[1]]
    tokenizer = Tokenizer.from_vocab(
        {token: number for number, token in enumerate(tokens)}, Rules("wordpiece", special=ODD)
    )
    rng = np.random.default_rng(0)
    params = drawn_params(Bert(MODEL))
    params = jax.tree.map(lambda leaf: np.asarray(leaf + rng.normal(0, 0.1, leaf.shape), np.float32), params)
    write_folder(MODEL, params, tokenizer, folder, card="")
    return folder
