"""A tiny model and a few examples to fine-tune it on."""

import csv
from pathlib import Path

import jax
import pytest
from drawn_params import drawn_params

from bertjax.config import BertConfig, Config
from bertjax.config.recipes import load_config
from bertjax.data.tokenizer.tokenizer import Tokenizer
from bertjax.hub.folder import write_folder
from bertjax.models.bert import Bert

WORDS = ("a", "the", "of", "good", "bad", "film")


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of a BERT with random weights."""
    tokenizer = Tokenizer.train([" ".join(WORDS)], min_frequency=1)
    config = BertConfig(tokenizer.vocab_size, 16, 1, 2, 32, 16)
    params = jax.device_get(drawn_params(Bert(config), seed=5))
    folder = tmp_path_factory.mktemp("models") / "tiny"
    write_folder(
        config, {part: params[part] for part in params if part not in ("mlm", "nsp")}, tokenizer, folder, card=""
    )
    return folder


@pytest.fixture
def classify(tiny_model: Path, tmp_path: Path, one_device: None) -> Config:
    """Ten examples to learn from in batches of 4, in two epochs, and four others to hold out."""
    rows = [
        (f"{' '.join(WORDS[: number % 3])} {('good', 'bad')[number % 2]} film", "+-"[number % 2])
        for number in range(14)
    ]
    for name, some in (("train", rows[:10]), ("valid", rows[10:])):
        with open(tmp_path / f"{name}.csv", "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("text", "label"), *some])
    typed = {"init_from": tiny_model, "task.train": tmp_path / "train.csv", "task.eval": tmp_path / "valid.csv"}
    typed |= {"run_dir": tmp_path / "run", "data.max_length": 16, "train.batch_size": 4, "train.epochs": 2}
    return load_config("classify", [f"{key}={value}" for key, value in typed.items()])
