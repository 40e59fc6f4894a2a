"""MPNet's folders: what is written is read. Its numbers are compared in tests/interop."""

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from whole_tokenizers import ROLES, framed, pieces, write

from bertjax.config import BertConfig
from bertjax.data.targets import Labels
from bertjax.data.tokenizer.files import load_tokenizer
from bertjax.errors import BertjaxError
from bertjax.hub.export import export_folder
from bertjax.hub.folder import check_writable, read_folder, read_model_config, read_task_folder, write_folder
from bertjax.hub.mpnet import MPNET
from bertjax.hub.task_head import TaskHead
from bertjax.models.bert import Bert
from bertjax.models.classifier import SequenceClassifier
from bertjax.models.parameters import params_template

CONFIG = BertConfig(60, 8, 2, 2, 12, 20, token_types=0, relative_attention_bias=True)
BIAS = "mpnet.encoder.relative_attention_bias.weight"


def random_params(model: Any) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), params_template(model))


def test_what_is_written_is_read_and_written_anew_alike(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(write(tmp_path / "pieces", pieces(), tokenizer_class="MPNetTokenizer", **ROLES))
    assert framed(tokenizer, "a", "a") == framed(tokenizer, "a") + [2] + framed(tokenizer, "a")[1:]
    params = random_params(Bert(CONFIG))
    assert check_writable(CONFIG, tmp_path / "out") is MPNET
    write_folder(CONFIG, params, tokenizer, tmp_path / "out", card="")
    read = read_folder(tmp_path / "out")
    assert read.config == CONFIG and read.tokenizer.template == tokenizer.template
    of_words = {part: leaves for part, leaves in params.items() if part not in ("pooler", "nsp")}
    jax.tree.map(np.testing.assert_array_equal, of_words, read.params)
    written = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (written["model_type"], written["architectures"]) == ("mpnet", ["MPNetForMaskedLM"])
    assert (written["max_position_embeddings"], written["relative_attention_num_buckets"]) == (22, 32)
    tensors = load_file(tmp_path / "out" / "model.safetensors")
    np.testing.assert_array_equal(tensors[BIAS], params["relative_attention_bias"])
    assert "mpnet.encoder.layer.1.attention.attn.o.weight" in tensors
    export_folder(tmp_path / "out", tmp_path / "again")
    assert json.loads((tmp_path / "again" / "config.json").read_text()) == written
    # As saved without a word head: no base before the names, and a pooler, which is left out.
    bare = {name.removeprefix("mpnet."): array for name, array in tensors.items() if name.startswith("mpnet.")}
    save_file(bare | {"pooler.dense.bias": np.ones(8, np.float32)}, tmp_path / "out" / "model.safetensors")
    assert read_folder(tmp_path / "out").params.keys() == of_words.keys() - {"mlm"}

    head = TaskHead("classify", Labels(("a", "b", "c")))
    params = random_params(SequenceClassifier(Bert(CONFIG), 3))
    write_folder(CONFIG, params, tokenizer, tmp_path / "labels", card="", head=head)
    model, found, _ = read_task_folder(tmp_path / "labels")
    assert (model.config, found) == (CONFIG, head)
    jax.tree.map(np.testing.assert_array_equal, model.params, params)


@pytest.mark.parametrize(
    ("theirs", "complaint"),
    [
        ({"relative_attention_num_buckets": 64}, "relative_attention_num_buckets=64 is not supported; only 32 is"),
        ({"pad_token_id": 0}, "pad_token_id=0 is not supported; only 1 is"),
        ({"hidden_act": "relu"}, "hidden_act='relu' is not supported; only 'gelu' is"),
    ],
)
def test_what_cannot_be_computed_is_refused(tmp_path: Path, theirs: dict[str, Any], complaint: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "mpnet"} | theirs))
    with pytest.raises(BertjaxError, match=f"config.json: {complaint}"):
        read_model_config(tmp_path)


def test_settings_that_are_left_out_are_the_familys() -> None:
    assert MPNET.read_config({}) == BertConfig(30527, token_types=0, max_position=510, relative_attention_bias=True)
    with pytest.raises(BertjaxError, match="model.window=4 has no place for model.relative_attention_bias=true"):
        BertConfig(window=4, relative_attention_bias=True)
