"""The transcription of the textbook is the textbook's model: it equals ours, which equals the book's figures."""

import dataclasses

import numpy as np
import pytest
from drawn_params import drawn_params

torch = pytest.importorskip("torch", reason="torch is an optional install: pip install 'bertjax[peers]'")
pytest.importorskip("transformers", reason="transformers is an optional install: pip install 'bertjax[peers]'")

from benchmarks.speed.text import prepare_text  # noqa: E402
from benchmarks.speed.training_peers import TextbookBert, labels_everywhere, train  # noqa: E402
from bertjax.config import BertConfig  # noqa: E402
from bertjax.models.bert import Bert  # noqa: E402

MODEL = dataclasses.replace(BertConfig.textbook(17), hidden_size=16, intermediate_size=32, max_position=32)


def with_our_weights(params: dict) -> TextbookBert:
    net = TextbookBert(MODEL, 17)

    def linear(prefix: str, ours: dict) -> dict:
        return {f"{prefix}.weight": ours["kernel"].T, f"{prefix}.bias": ours["bias"]}

    def norm(prefix: str, ours: dict) -> dict:
        return {f"{prefix}.weight": ours["scale"], f"{prefix}.bias": ours["bias"]}

    state = {
        "tokens.weight": params["token_embedding"],
        "segments.weight": params["segment_embedding"],
        "positions": params["position_embedding"][None],
        **linear("mlm.0", params["mlm"]["hidden"]),
        **norm("mlm.2", params["mlm"]["norm"]),
        **linear("mlm.3", params["mlm"]["vocab"]),
        **linear("pooler.0", params["pooler"]),
        **linear("nsp", params["nsp"]),
    }
    for layer in range(MODEL.num_layers):
        block, prefix = params[f"block_{layer}"], f"blocks.{layer}"
        for name in ("query", "key", "value", "out"):
            state |= linear(f"{prefix}.{name}", block["attention"][name])
        state |= norm(f"{prefix}.attention_norm", block["attention_norm"])
        state |= norm(f"{prefix}.ffn_norm", block["ffn_norm"])
        state |= linear(f"{prefix}.ffn.0", block["ffn"]["in"]) | linear(f"{prefix}.ffn.2", block["ffn"]["out"])
    net.load_state_dict({name: torch.tensor(np.array(array)) for name, array in state.items()})
    return net.eval()


def test_textbook_model_equals_ours(tiny, tmp_path):
    batch = prepare_text(tiny, tmp_path / "bench")[0].train_batches.batch_at(0)
    params = drawn_params(Bert(MODEL))
    fields = (batch.tokens_bt, batch.segments_bt, batch.positions_bt, batch.sequences_bt)
    ours = Bert(MODEL).apply({"params": params}, *fields, batch.mlm_positions_bp, batch.cls_positions_bk)
    lengths_b = (batch.sequences_bt > 0).sum(axis=1)
    with torch.no_grad():
        theirs = with_our_weights(params)(
            *(torch.tensor(field) for field in (batch.tokens_bt, batch.segments_bt, lengths_b)),
            torch.tensor(batch.mlm_positions_bp, dtype=torch.int64),
        )
    real = batch.mlm_weights_bp > 0
    np.testing.assert_allclose(theirs[0].numpy()[real], np.asarray(ours[0])[real], atol=2e-5)
    np.testing.assert_allclose(theirs[1].numpy(), np.asarray(ours[1])[:, 0], atol=2e-5)


def test_labels_everywhere_are_the_predictions(tiny, tmp_path):
    batch = prepare_text(tiny, tmp_path / "bench")[0].train_batches.batch_at(0)
    labels_bt = labels_everywhere(batch)
    assert (labels_bt != -100).sum() == batch.mlm_weights_bp.sum()
    row, slot = np.argwhere(batch.mlm_weights_bp)[-1]
    assert labels_bt[row, batch.mlm_positions_bp[row, slot]] == batch.mlm_labels_bp[row, slot]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("model", ["textbook", "transformers"])
@pytest.mark.parametrize("bf16", [False, True])
def test_a_peer_trains(model, bf16, tiny, tmp_path):
    prepare_text(tiny, tmp_path / "bench")
    config = str(tmp_path / "bench/config.yaml")
    figures = train(config=config, model=model, bf16=bf16, warm=1, steps=2, patience=60.0)
    assert figures["pairs_per_second"] > 0 and figures["useful_flops"] > 0
