"""Texts whose label is told by a word, a tiny model to start from, and changes of a configuration."""

import csv
import dataclasses
import random
from pathlib import Path
from typing import Any

import jax

from bertjax.config import BertConfig, Config
from bertjax.data.tokenizer.tokenizer import Tokenizer
from bertjax.hub.folder import write_folder
from bertjax.models.bert import Bert, init_params

WORDS = [f"word{number}" for number in range(12)]


def examples(count: int, seed: int) -> list[tuple[str, str]]:
    """Texts of words, among them one of three that tell the label."""
    choose = random.Random(seed)
    rows = []
    for _ in range(count):
        label = choose.choice(["red", "green", "blue"])
        words = choose.choices(WORDS, k=choose.randint(1, 9))
        words.insert(choose.randint(0, len(words)), f"{label}ish")
        rows.append((" ".join(words), label))
    return rows


def write_table(file: Path, rows: list[tuple[str, str]]) -> Path:
    with open(file, "w", newline="", encoding="utf-8") as opened:
        csv.writer(opened).writerows([("text", "label"), *rows])
    return file


def write_model(folder: Path, *, num_layers: int = 1) -> Path:
    """Writes a tiny BERT with random weights, as from elsewhere."""
    tokenizer = Tokenizer.train([" ".join([*WORDS, "redish greenish blueish"])], min_frequency=1)
    config = BertConfig(tokenizer.vocab_size, 16, num_layers, 2, 32, 16, init_scale=0.2)
    params = jax.device_get(init_params(Bert(config), jax.random.key(5)))
    params = {part: params[part] for part in params if part not in ("mlm", "nsp")}
    write_folder(config, params, tokenizer, folder, card="")
    return folder


def but(config: Config, **keys: Any) -> Config:
    """Returns it with other values, such as train__steps=3."""
    for key, value in keys.items():
        section, _, name = key.rpartition("__")
        value = dataclasses.replace(getattr(config, section), **{name: value}) if section else value
        config = dataclasses.replace(config, **{section or name: value})
    return config
