"""Families of encoders beside the real `transformers`: the same numbers from their folders, and theirs from ours."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from family_models import (
    FAMILIES,
    HEADS,
    TEXTS,
    WHOLE,
    difference,
    family_of,
    has_segments,
    outputs,
    saved,
    torch,
    transformers,
    write_tokenizer,
)

from bertjax import load_config, pretrain
from bertjax.data.batching.batch import Batch
from bertjax.data.tokenizer.settings import read_json
from bertjax.hub.export import export_run
from bertjax.hub.folder import HubModel, leaves, read_folder, write_folder
from bertjax.inference.encoder import Encoder
from bertjax.models.bert import Bert
from bertjax.models.parameters import params_template
from bertjax.objectives.pretraining import batch_metrics
from bertjax.runs.folder import RunFolder

pytestmark = pytest.mark.filterwarnings("default")  # theirs are not ours to mend
ATOL = 1e-5
Tell = Callable[[str, str, float], None]


def drawn(model: Any) -> tuple[np.ndarray, np.ndarray]:
    """Ids of three rows, and where they are real."""
    mask_bt = np.ones((3, 11), int)
    mask_bt[1, 7:] = 0
    return np.random.default_rng(0).integers(5, model.config.vocab_size, (3, 11)), mask_bt


def batch_of(ids_bt: np.ndarray, mask_bt: np.ndarray) -> tuple[np.ndarray, ...]:
    return ids_bt, 0 * ids_bt, np.broadcast_to(np.arange(ids_bt.shape[1]), ids_bt.shape), mask_bt


@pytest.mark.parametrize("name", FAMILIES)
def test_their_numbers_are_ours_both_ways(name: str, tmp_path: Path, tell: Tell) -> None:
    family, model = family_of(name), saved(tmp_path / "theirs", name, FAMILIES[name])
    ours = read_folder(tmp_path / "theirs")
    ids_bt, mask_bt = drawn(model)
    hidden_btd, logits_btv = outputs(model, ids_bt, mask_bt)
    bert, variables, batch, real = Bert(ours.config), {"params": ours.params}, batch_of(ids_bt, mask_bt), mask_bt > 0
    found_btd = np.asarray(bert.apply(variables, *batch, method="encode"))
    found_mv = np.asarray(bert.apply(variables, found_btd.reshape(-1, 32), method="words"))
    far = {
        "hidden": difference(found_btd[real], hidden_btd[real]),
        "words": difference(found_mv.reshape(3, 11, -1)[real], logits_btv[real]),
        "gradients": gradients_differ(model, ours, tmp_path / "gradients", name),
    }
    for what, value in far.items():
        tell(family.name, what, value)
    assert max(far.values()) < ATOL
    # The first row's text beside another's in one row of the batch: what the other says changes nothing.
    beside = [np.concatenate((array[:1], array[2:]), 1) for array in batch[:3]]
    sequences_bt = np.repeat([[1, 2]], 11, 1)
    packed_1td = bert.apply(variables, *beside, sequences_bt, method="encode")
    beside[0] = np.where(sequences_bt == 1, beside[0], 5)
    other_1td = bert.apply(variables, *beside, sequences_bt, method="encode")
    leak = difference(np.asarray(packed_1td[:, :11]), np.asarray(other_1td[:, :11]))
    tell(family.name, "leak of a neighbour", leak)
    assert leak == 0
    np.testing.assert_allclose(packed_1td[0, :11], found_btd[0], atol=ATOL)

    write_folder(*ours, tmp_path / "ours", card="", families=(family,))
    again, told = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not told["missing_keys"] and not told["unexpected_keys"]
    exported = zip(outputs(again.eval(), ids_bt, mask_bt), (hidden_btd, logits_btv), strict=True)
    tell(family.name, "exported", worst := max(difference(*both) for both in exported))
    assert worst == 0
    check_verbs(name, tmp_path / "ours", again, tell)


def gradients_differ(model: Any, ours: HubModel, folder: Path, name: str) -> float:
    """The largest difference of the gradients of the mean MLM loss, which a folder has in place of weights."""
    ids_bt, mask_bt = drawn(model)
    places_bp = np.array([[1, 4, 9], [0, 6, 2], [3, 8, 10]])
    labels_bp = np.random.default_rng(1).integers(0, model.config.vocab_size, places_bp.shape)
    logits = model(input_ids=torch.from_numpy(ids_bt), attention_mask=torch.from_numpy(mask_bt)).logits
    at_places = logits[torch.arange(3)[:, None], torch.from_numpy(places_bp)]
    torch.nn.functional.cross_entropy(at_places.flatten(0, 1), torch.from_numpy(labels_bp).flatten()).backward()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:  # RoFormer's angles are none that learn
                parameter.copy_(torch.zeros_like(parameter) if parameter.grad is None else parameter.grad)
    write_tokenizer(folder, name, segments=has_segments(model))
    model.save_pretrained(folder)
    expected = dict(leaves(read_folder(folder).params))

    bert = Bert(ours.config)
    heads = {part: leaf for part, leaf in params_template(bert).items() if part not in ours.params}
    params = ours.params | jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), heads)
    of_pairs = (np.zeros((3, 1), int), np.zeros((3, 1), int), np.zeros((3, 1), np.float32))
    weights_bp = np.ones(places_bp.shape, np.float32)
    batch = Batch(*batch_of(ids_bt, mask_bt), places_bp, labels_bp, weights_bp, *of_pairs)

    def loss_of(params: dict[str, Any]) -> jax.Array:
        total, weight = batch_metrics(bert, params, batch)["mlm_loss"]
        return total / weight

    found, paths = dict(leaves(jax.grad(loss_of)(params))), expected.keys() & family_of(name).names(ours.config).keys()
    assert {path.partition("/")[0] for path in found.keys() - paths} <= {"pooler", "nsp"}
    print(f"largest gradient: {max(np.abs(expected[path]).max() for path in paths):.2f}")
    return max(difference(np.asarray(found[path]), expected[path]) for path in paths)


def check_verbs(name: str, folder: Path, model: Any, tell: Tell) -> None:
    """A pair is encoded, and a mask filled, as their tokenizer and model would."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    inputs = tokenizer(TEXTS[0], TEXTS[1], return_tensors="pt")
    assert ("token_type_ids" in inputs) == has_segments(model)
    if name.split()[0] in WHOLE and "token_type_ids" in inputs:  # which theirs never has
        assert not inputs.pop("token_type_ids").any()
    with torch.no_grad():
        of_pair_td = model.base_model(**inputs).last_hidden_state[0].numpy()
    encoder = Encoder.load(folder)
    found_1td = encoder.encode_tokens(*(tokenizer.tokenize(text) for text in TEXTS[:2]))
    text = f"a {tokenizer.mask_token} is flying"
    masked = tokenizer(text, return_tensors="pt")
    with torch.no_grad():
        at_mask_v = model(**masked).logits.softmax(-1)[masked.input_ids == tokenizer.mask_token_id][0]
    (guesses,) = encoder.fill_mask(text, top=3)
    likely = np.array([guess[1] for guess in guesses])
    far = {
        "encode": difference(found_1td[0], of_pair_td),
        "fill-mask": difference(likely, at_mask_v.topk(3).values.numpy()),
    }
    for what, value in far.items():
        tell(family_of(name).name, what, value)
    assert max(far.values()) < ATOL


@pytest.mark.parametrize("name", [name for name in HEADS if " " not in name])
def test_a_run_that_pretrains_one_further_leaves_as_it(name: str, tmp_path: Path, tell: Tell) -> None:
    saved(tmp_path / "theirs", name, HEADS[name])
    (texts := tmp_path / "texts.txt").write_text("\n".join(TEXTS * 40) + "\n")
    said = [f"init_from={tmp_path / 'theirs'}", f"data.path={texts}", f"data.eval_path={texts}", "data.document=line"]
    said += ["data.source=files", f"data.cache={tmp_path / 'cache'}", "data.objective=mlm", "data.workers=1"]
    said += [f"run_dir={tmp_path / 'run'}", "train.steps=3", "train.batch_size=4", "optim.warmup_steps=1"]
    run = pretrain(load_config("tiny", said))
    export_run(RunFolder(run), tmp_path / "ours")
    (kind,) = read_json(tmp_path / "ours" / "config.json")["architectures"]  # BERT's and ALBERT's have both heads
    again, told = getattr(transformers, kind).from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert again.config.model_type == name and not told["missing_keys"] and not told["unexpected_keys"]
    inputs = transformers.AutoTokenizer.from_pretrained(tmp_path / "ours")(TEXTS[0], return_tensors="pt")
    with torch.no_grad():
        expected_td = again.eval().base_model(**inputs).last_hidden_state[0].numpy()
    started_td, ended_td = (
        Encoder.load(folder).encode([TEXTS[0]], pooling="tokens")[0] for folder in (tmp_path / "theirs", run)
    )
    tell(family_of(name).name, "pretrained further", far := difference(ended_td, expected_td))
    assert far < ATOL and np.abs(ended_td - started_td).max() > 100 * ATOL


@pytest.mark.parametrize("name, of_pairs", [("bert", "seq_relationship_logits"), ("albert", "sop_logits")])
def test_the_pooler_and_the_head_for_pairs(name: str, of_pairs: str, tmp_path: Path, tell: Tell) -> None:
    model = saved(tmp_path / "theirs", name, FAMILIES[name], transformers.AutoModelForPreTraining)
    ours = read_folder(tmp_path / "theirs")
    assert set(ours.params) >= {"pooler", "nsp", "mlm"}
    inputs = transformers.AutoTokenizer.from_pretrained(tmp_path / "theirs")(*TEXTS[:2], return_tensors="pt")
    with torch.no_grad():
        pooled_1d = model.base_model(**inputs).pooler_output.numpy()
        in_order_12 = model(**inputs)[of_pairs].numpy()[:, ::-1]
    tokens_1t, segments_1t = inputs.input_ids.numpy(), inputs.token_type_ids.numpy()
    rest = (np.arange(tokens_1t.size)[None], np.ones_like(tokens_1t), np.ones((1, 1), int), np.zeros((1, 1), int))
    bert, variables = Bert(ours.config), {"params": ours.params}
    _, found_112 = bert.apply(variables, tokens_1t, segments_1t, *rest)
    encoded_1td, pooler = (
        bert.apply(variables, tokens_1t, segments_1t, *rest[:2], method="encode"),
        ours.params["pooler"],
    )
    found_1d = np.tanh(np.asarray(encoded_1td)[:, 0] @ pooler["kernel"] + pooler["bias"])
    far = {
        "pooled": difference(found_1d, pooled_1d),
        "order of pairs": difference(np.asarray(found_112[0]), in_order_12),
    }
    for what, value in far.items():
        tell(family_of(name).name, what, value)
    assert max(far.values()) < ATOL
    write_folder(*ours, tmp_path / "ours", card="")
    again, told = transformers.AutoModelForPreTraining.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert again.config.architectures == [type(model).__name__]
    assert not told["missing_keys"] and not told["unexpected_keys"]
    with torch.no_grad():
        np.testing.assert_array_equal(again.eval()(**inputs)[of_pairs].numpy()[:, ::-1], in_order_12)


def test_debertas_ways_that_are_far_are_theirs(tmp_path: Path) -> None:
    """Beyond 128 tokens, where buckets are ever wider."""
    model = saved(tmp_path / "theirs", "deberta-v2", FAMILIES["deberta-v2"] | {"max_position_embeddings": 320})
    ids_bt = np.random.default_rng(0).integers(5, model.config.vocab_size, (1, 320))
    hidden_btd, _ = outputs(model, ids_bt, np.ones_like(ids_bt))
    config, params, _ = read_folder(tmp_path / "theirs")
    found_btd = Bert(config).apply({"params": params}, *batch_of(ids_bt, np.ones_like(ids_bt)), method="encode")
    assert difference(np.asarray(found_btd), hidden_btd) < ATOL
