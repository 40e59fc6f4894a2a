"""Damaged Hugging Face folders: a BERT, or a line that says what is wrong with it."""

import shutil
import tempfile
from pathlib import Path

import pytest
from answers import REFUSED, answer, damaged_bytes, damaged_json
from hypothesis import given
from hypothesis import strategies as st

from bertjax.hub.folder import read_folder

BERT = Path(__file__).parents[1] / "reference" / "bert"


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"])
def test_damaged_files(name):
    whole = (BERT / name).read_bytes()
    contents = damaged_bytes(whole)
    if name.endswith("json"):
        contents |= damaged_json(whole.decode()).map(lambda text: text.encode("utf-8", "surrogatepass"))

    @given(contents)
    def test(content):
        with tempfile.TemporaryDirectory() as folder:
            shutil.copytree(BERT, folder, dirs_exist_ok=True)
            Path(folder, name).write_bytes(content)
            read = answer(read_folder, Path(folder))
            if read is not REFUSED:
                assert read.params["token_embedding"].shape == (read.config.vocab_size, read.config.hidden_size)
                assert read.tokenizer.vocab_size <= read.config.vocab_size

    test()


@given(st.binary() | damaged_json('{"weight_map": {"a": "model.safetensors"}}').map(str.encode))
def test_an_index_of_any_kind(content):
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(BERT, folder, dirs_exist_ok=True)
        Path(folder, "model.safetensors.index.json").write_bytes(content)
        answer(read_folder, Path(folder))
