"""DeBERTa's folders: what is written is read. Their numbers are compared in tests/interop."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from whole_tokenizers import framed, unigram, write

from bertjax.config import BertConfig
from bertjax.data.targets import Labels
from bertjax.data.tokenizer.files import load_tokenizer
from bertjax.errors import BertjaxError
from bertjax.hub.deberta_v2 import DEBERTA_V2
from bertjax.hub.folder import check_writable, read_folder, read_model_config, read_task_folder, write_folder
from bertjax.hub.task_head import TaskHead
from bertjax.models.bert import Bert
from bertjax.models.classifier import SequenceClassifier
from bertjax.models.parameters import params_template

CONFIG = BertConfig(60, 8, 2, 2, 12, 20, positions="disentangled", token_types=0, pooler_act="hidden_act")
ROLES = {"pad_token": "<pad>", "unk_token": "<unk>", "cls_token": "<s>", "sep_token": "</s>", "mask_token": "<mask>"}


def random_params(model: Any) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), params_template(model))


def test_what_is_written_is_read_under_both_names_of_its_head(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(write(tmp_path / "pieces", unigram(), tokenizer_class="DebertaV2Tokenizer", **ROLES))
    params = random_params(Bert(CONFIG))
    assert check_writable(CONFIG, tmp_path / "out") is DEBERTA_V2
    write_folder(CONFIG, params, tokenizer, tmp_path / "out", card="")
    read = read_folder(tmp_path / "out")
    of_words = {part: leaves for part, leaves in params.items() if part not in ("pooler", "nsp")}
    assert read.config == CONFIG
    jax.tree.map(np.testing.assert_array_equal, of_words, read.params)
    written = json.loads((tmp_path / "out" / "config.json").read_text())
    assert DEBERTA_V2.read_config(written) == CONFIG and written["position_buckets"] == 256
    tensors = load_file(tmp_path / "out" / "model.safetensors")
    assert tensors["deberta.encoder.rel_embeddings.weight"].shape == (512, 8)
    newer = {
        name.replace("cls.predictions.transform", "lm_predictions.lm_head").replace(
            "cls.predictions", "lm_predictions.lm_head"
        ): array
        for name, array in tensors.items()
    }
    save_file(newer | {"mask_predictions.dense.bias": np.ones(8, np.float32)}, tmp_path / "out" / "model.safetensors")
    assert "lm_predictions.lm_head.dense.weight" in newer
    jax.tree.map(np.testing.assert_array_equal, of_words, read_folder(tmp_path / "out").params)

    head = TaskHead("classify", Labels(("a", "b", "c")))
    params = random_params(SequenceClassifier(Bert(CONFIG), 3))
    write_folder(CONFIG, params, tokenizer, tmp_path / "labels", card="", head=head)
    model, found, _ = read_task_folder(tmp_path / "labels")
    assert (model.config, found) == (CONFIG, head)
    jax.tree.map(np.testing.assert_array_equal, model.params, params)


def test_its_tokenizer_takes_the_vocabulary_alone_from_tokenizer_json(tmp_path: Path) -> None:
    engine, settings = unigram(split=False), {"tokenizer_class": "DebertaV2Tokenizer", **ROLES}
    plain = load_tokenizer(write(tmp_path / "plain", engine, **settings))
    lower = load_tokenizer(write(tmp_path / "lower", engine, do_lower_case=True, **settings))
    assert framed(plain, "a\n\ncrane  is ") == framed(plain, "a crane is")
    assert framed(lower, "A Crane") == framed(plain, "a crane") != framed(plain, "A Crane")
    assert plain.template.pair.num_first == 3 and framed(plain, "a", "a") == framed(plain, "a") + framed(plain, "a")[1:]


FINE: dict[str, Any] = {"model_type": "deberta-v2", "relative_attention": True, "position_biased_input": False}
FINE |= {"share_att_key": True, "position_buckets": 256, "norm_rel_ebd": "layer_norm", "pos_att_type": "p2c|c2p"}


@pytest.mark.parametrize(
    ("theirs", "complaint"),
    [
        ({"conv_kernel_size": 3}, "conv_kernel_size=3 is not supported; only 0 is"),
        ({"position_biased_input": True}, "position_biased_input=True is not supported; only False is"),
        ({"pos_att_type": ["c2p"]}, r"pos_att_type=\['c2p'\] is not supported; only 'p2c|c2p' is"),
        ({"position_buckets": 32}, "position_buckets=32 is not supported; only 256 is"),
        ({"max_relative_positions": 128}, "max_relative_positions=128 is not supported; only -1 or 512 is"),
        ({"pooler_hidden_act": "tanh"}, "pooler_hidden_act='tanh' is not supported; only that of hidden_act is"),
        ({"embedding_size": 128}, "embedding_size=128 is not supported; only hidden_size is"),
    ],
)
def test_what_cannot_be_computed_is_refused(tmp_path: Path, theirs: dict[str, Any], complaint: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps(FINE | theirs))
    with pytest.raises(BertjaxError, match=f"config.json: {complaint}"):
        read_model_config(tmp_path)


def test_settings_that_have_no_place_beside_each_other() -> None:
    sizes = BertConfig(128100, 1536, 24, 24, 6144, layer_norm_eps=1e-7, positions="disentangled", token_types=0)
    assert DEBERTA_V2.read_config(FINE) == dataclasses.replace(sizes, pooler_act="hidden_act")
    for options in ({"window": 4}, {"relative_attention_bias": True}):
        with pytest.raises(BertjaxError, match="has no place .*model.positions=disentangled"):
            dataclasses.replace(CONFIG, **options)
