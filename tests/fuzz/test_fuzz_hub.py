"""Damaged Hugging Face folders: a BERT, or a line that says what is wrong with it."""

import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from answers import REFUSED, answer, damaged_bytes, damaged_json
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save

from bertjax.hub.folder import read_folder
from bertjax.hub.sentence_transformers import read_settings
from bertjax.models.sentence import vector_size

pytestmark = pytest.mark.filterwarnings("ignore:.*has weights that its config.json gives no place")
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


@given(st.binary() | damaged_json('{"weight_map": {"a": "shard.safetensors"}}').map(str.encode))
def test_an_index_of_any_kind(content):
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(BERT, folder, dirs_exist_ok=True)
        Path(folder, "model.safetensors").rename(Path(folder, "shard.safetensors"))
        Path(folder, "model.safetensors.index.json").write_bytes(content)
        answer(read_folder, Path(folder))


KINDS = {"": "Transformer", "1_Pooling": "Pooling", "2_Dense": "Dense", "3_LayerNorm": "LayerNorm", "4": "Normalize"}
MODULES = [{"path": path, "type": f"sentence_transformers.models.{kind}"} for path, kind in KINDS.items()]
DENSE = {"in_features": 8, "out_features": 3, "bias": False, "activation_function": "torch.nn.Tanh"}
TENSORS = {
    "2_Dense": {"linear.weight": np.ones((3, 8))},
    "3_LayerNorm": dict.fromkeys(["norm.weight", "norm.bias"], np.ones(3)),
}
FILES: dict[str, bytes] = {
    "modules.json": json.dumps(MODULES).encode(),
    "sentence_bert_config.json": b'{"max_seq_length": 16, "do_lower_case": true}',
    "config_sentence_transformers.json": b'{"prompts": {"a": "b"}, "default_prompt_name": "a", "truncate_dim": 2}',
    "1_Pooling/config.json": b'{"word_embedding_dimension": 8, "pooling_mode": ["cls"], "include_prompt": true}',
    "2_Dense/config.json": json.dumps(DENSE).encode(),
    "3_LayerNorm/config.json": b'{"dimension": 3}',
    "4/config.json": b'{"module_input_name": "sentence_embedding"}',
    **{f"{place}/model.safetensors": save(tensors) for place, tensors in TENSORS.items()},
}


@st.composite
def damaged_modules(draw):
    name = draw(st.sampled_from(list(FILES)))
    contents = damaged_bytes(FILES[name])
    if name.endswith("json"):
        contents |= damaged_json(FILES[name].decode()).map(lambda text: text.encode("utf-8", "surrogatepass"))
    return FILES | {name: draw(contents)}


@given(damaged_modules())
def test_damaged_modules(files):
    with tempfile.TemporaryDirectory() as folder:
        for path, content in files.items():
            Path(folder, path).parent.mkdir(exist_ok=True)
            Path(folder, path).write_bytes(content)
        read = answer(read_settings, Path(folder), 8, lowercases=True)
        if read is not REFUSED:
            vector_size(read.layers, 8 * len(read.pooling))
            assert isinstance(read.default_prompt, str) and (read.max_length is None or read.max_length > 2)
