"""Families of encoders beside the real `transformers`: the same numbers from their folders, and theirs from ours."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from whole_tokenizers import ROLES, bpe, pieces, unigram, write  # noqa: E402

from bertjax import Classifier, finetune, load_config  # noqa: E402
from bertjax.data.tokenizer.tokenizer import BERTS_SPECIAL_TOKENS, Rules, Tokenizer  # noqa: E402
from bertjax.hub.export import export_folder, export_run  # noqa: E402
from bertjax.hub.folder import FAMILIES as KNOWN  # noqa: E402
from bertjax.hub.folder import read_folder, write_folder  # noqa: E402
from bertjax.inference.encoder import Encoder  # noqa: E402
from bertjax.inference.tagger import Tagger  # noqa: E402
from bertjax.models.bert import Bert  # noqa: E402
from bertjax.runs.folder import RunFolder  # noqa: E402

ATOL = 1e-5
TEXTS = ["a crane is flying over it", "he just left", "cranes"]
PIECES = Tokenizer.train(TEXTS, min_frequency=1, rules=Rules("wordpiece", special=BERTS_SPECIAL_TOKENS), vocab_size=60)
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
SIZES |= {"max_position_embeddings": 40, "pad_token_id": 0}

ALBERT = {"embedding_size": 16, "hidden_act": "gelu_pytorch_tanh"}  # its default is the same but for rounding

FAMILIES: dict[str, dict[str, Any]] = {
    "roformer": {},
    "roformer narrow": {"embedding_size": 24},
    "roformer untied": {"tie_word_embeddings": False},
    "electra": {"embedding_size": 32},
    "electra small": {"embedding_size": 16},
    "electra untied": {"embedding_size": 32, "tie_word_embeddings": False},
    "albert": ALBERT,
    "albert untied": {"embedding_size": 16, "tie_word_embeddings": False, "hidden_act": "relu"},
    "roberta": {},
    "roberta untied": {"tie_word_embeddings": False, "type_vocab_size": 2},
    "xlm-roberta": {},
    "camembert": {},
    "mpnet": {},
    "mpnet untied": {"tie_word_embeddings": False},
    "distilbert": {},
    "distilbert untied": {"tie_word_embeddings": False, "activation": "relu"},
    "modernbert": {"local_attention": 4, "num_hidden_layers": 4},
    "modernbert global": {"global_attn_every_n_layers": 1, "global_rope_theta": 500.0},
    "modernbert silu": {"hidden_activation": "silu", "classifier_activation": "silu", "local_attention": 6},
}


WHOLE = {  # families whose padding is token 1: what makes a tokenizer, and its class
    "roberta": (bpe, "RobertaTokenizer"),
    "xlm-roberta": (unigram, "XLMRobertaTokenizer"),
    "camembert": (unigram, "CamembertTokenizer"),
    "mpnet": (pieces, "MPNetTokenizer"),
}


def theirs(name: str, settings: dict[str, Any], kind: Any = transformers.AutoModelForMaskedLM) -> Any:
    """A random model of theirs, by default one that predicts words, whose norms and biases differ from 1 and 0."""
    torch.manual_seed(0)
    sizes = SIZES | {"vocab_size": PIECES.vocab_size} | settings
    kind_of_model = name.split()[0]
    if kind_of_model == "distilbert":
        sizes["hidden_dim"] = sizes.pop("intermediate_size")
    if kind_of_model in WHOLE:
        made = WHOLE[kind_of_model][0]()
        sizes = {"type_vocab_size": 1} | sizes | {"vocab_size": made.get_vocab_size(), "pad_token_id": 1}
    config = transformers.AutoConfig.for_model(kind_of_model, **sizes)
    model = kind.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def outputs(model: Any, ids_bt: np.ndarray, mask_bt: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The last hidden states and the words' logits of theirs."""
    with torch.no_grad():
        ids, mask = torch.from_numpy(ids_bt).long(), torch.from_numpy(mask_bt).long()
        hidden = model.base_model(input_ids=ids, attention_mask=mask).last_hidden_state
        logits = model(input_ids=ids, attention_mask=mask).logits
    return hidden.numpy(), logits.numpy()


def difference(ours: np.ndarray, theirs: np.ndarray) -> float:
    """The largest, beside the largest number if that is above 1: float32 is no finer."""
    return float(np.abs(ours - theirs).max() / max(1, np.abs(theirs).max()))


@pytest.mark.parametrize("name", FAMILIES)
def test_their_numbers_are_ours_both_ways(name: str, tmp_path: Path) -> None:
    model = theirs(name, FAMILIES[name])
    segments = getattr(model.config, "type_vocab_size", 0) > 1
    write_tokenizer(tmp_path / "theirs", name, segments=segments)
    model.save_pretrained(tmp_path / "theirs")
    ours = read_folder(tmp_path / "theirs")
    rng = np.random.default_rng(0)
    ids_bt, mask_bt = rng.integers(5, model.config.vocab_size, (3, 11)), np.ones((3, 11), int)
    mask_bt[1, 7:] = 0
    hidden_btd, logits_btv = outputs(model, ids_bt, mask_bt)
    batch = (ids_bt, 0 * ids_bt, np.broadcast_to(np.arange(11), ids_bt.shape), mask_bt)
    bert, variables = Bert(ours.config), {"params": ours.params}
    found_btd = np.asarray(bert.apply(variables, *batch, method="encode"))
    found_mv = np.asarray(bert.apply(variables, found_btd.reshape(-1, 32), method="words"))
    real = mask_bt > 0
    far = {
        "hidden": difference(found_btd[real], hidden_btd[real]),
        "words": difference(found_mv.reshape(3, 11, -1)[real], logits_btv[real]),
    }
    print("largest differences:", {part: f"{value:.1e}" for part, value in far.items()})
    assert max(far.values()) < ATOL
    # The first row's text beside another's in one row of the batch: what the other says changes nothing.
    beside = [np.concatenate((array[:1], array[2:]), 1) for array in batch[:3]]
    sequences_bt = np.repeat([[1, 2]], 11, 1)
    packed_1td = bert.apply(variables, *beside, sequences_bt, method="encode")
    beside[0] = np.where(sequences_bt == 1, beside[0], 5)
    other_1td = bert.apply(variables, *beside, sequences_bt, method="encode")
    np.testing.assert_array_equal(packed_1td[:, :11], other_1td[:, :11])
    np.testing.assert_allclose(packed_1td[0, :11], found_btd[0], atol=ATOL)

    family = next(family for family in KNOWN if family.model_type == name.split()[0])
    write_folder(*ours, tmp_path / "ours", card="", families=(family,))
    again, told = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not told["missing_keys"] and not told["unexpected_keys"]
    for one, other in zip(outputs(again.eval(), ids_bt, mask_bt), (hidden_btd, logits_btv), strict=True):
        np.testing.assert_array_equal(one, other)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "ours")
    inputs = tokenizer(TEXTS[0], TEXTS[1], return_tensors="pt")
    assert ("token_type_ids" in inputs) == segments
    segments_of_pair = (
        inputs.pop("token_type_ids", None) if name.split()[0] in WHOLE else None
    )  # which theirs never has
    assert segments_of_pair is None or not segments_of_pair.any()
    with torch.no_grad():
        of_pair_td = again.base_model(**inputs).last_hidden_state[0].numpy()
    encoder = Encoder.load(tmp_path / "ours")
    found_1td = encoder.encode_tokens(*(tokenizer.tokenize(text) for text in TEXTS[:2]))
    assert difference(found_1td[0], of_pair_td) < ATOL
    text = f"a {tokenizer.mask_token} is flying"
    masked = tokenizer(text, return_tensors="pt")
    with torch.no_grad():
        at_mask_v = again(**masked).logits.softmax(-1)[masked.input_ids == tokenizer.mask_token_id][0]
    (guesses,) = encoder.fill_mask(text, top=3)
    np.testing.assert_allclose([guess[1] for guess in guesses], at_mask_v.topk(3).values, atol=ATOL)


def test_alberts_pooler_and_its_head_for_the_order_of_sentences(tmp_path: Path) -> None:
    model = theirs("albert", FAMILIES["albert"], transformers.AutoModelForPreTraining)
    write_tokenizer(tmp_path / "theirs", "albert", segments=True)
    model.save_pretrained(tmp_path / "theirs")
    ours = read_folder(tmp_path / "theirs")
    assert set(ours.params) >= {"pooler", "nsp", "mlm"}
    inputs = transformers.AutoTokenizer.from_pretrained(tmp_path / "theirs")(*TEXTS[:2], return_tensors="pt")
    with torch.no_grad():
        pooled_1d = model.base_model(**inputs).pooler_output.numpy()
        in_order_12 = model(**inputs).sop_logits.numpy()[:, ::-1]
    tokens_1t, segments_1t = inputs.input_ids.numpy(), inputs.token_type_ids.numpy()
    rest = (np.arange(tokens_1t.size)[None], np.ones_like(tokens_1t), np.ones((1, 1), int), np.zeros((1, 1), int))
    bert, variables = Bert(ours.config), {"params": ours.params}
    _, found_112 = bert.apply(variables, tokens_1t, segments_1t, *rest)
    assert difference(np.asarray(found_112[0]), in_order_12) < ATOL
    encoded_1td = bert.apply(variables, tokens_1t, segments_1t, *rest[:2], method="encode")
    pooler = ours.params["pooler"]
    assert difference(np.tanh(np.asarray(encoded_1td)[:, 0] @ pooler["kernel"] + pooler["bias"]), pooled_1d) < ATOL
    write_folder(*ours, tmp_path / "ours", card="")
    again, told = transformers.AlbertForPreTraining.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert again.config.architectures == ["AlbertForPreTraining"]
    assert not told["missing_keys"] and not told["unexpected_keys"]
    with torch.no_grad():
        np.testing.assert_array_equal(again.eval()(**inputs).sop_logits.numpy()[:, ::-1], in_order_12)


@pytest.mark.parametrize("name", ["roformer", "distilbert", "electra", "albert", *WHOLE])
def test_labels_of_tokens_are_read_and_written(name: str, tmp_path: Path) -> None:
    settings = FAMILIES[name] | {"num_labels": 3}
    model = theirs(name, settings, transformers.AutoModelForTokenClassification)
    write_tokenizer(tmp_path / "theirs", name, segments=name not in ("distilbert", *WHOLE))
    model.save_pretrained(tmp_path / "theirs")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "theirs")
    inputs = tokenizer(TEXTS[0], return_tensors="pt")
    with torch.no_grad():
        expected = model(**inputs).logits.softmax(-1)[0, 1:-1]
    of_words = inputs.word_ids()
    first = [of_words.index(number) - 1 for number in range(len(TEXTS[0].split()))]
    (told,) = Tagger.load(tmp_path / "theirs").predict([TEXTS[0]])
    np.testing.assert_allclose(told.probabilities, expected[first].max(-1).values, atol=ATOL)
    export_folder(tmp_path / "theirs", tmp_path / "ours")
    again, info = transformers.AutoModelForTokenClassification.from_pretrained(
        tmp_path / "ours", output_loading_info=True
    )
    assert type(again) is type(model) and not info["missing_keys"] and not info["unexpected_keys"]
    with torch.no_grad():
        np.testing.assert_array_equal(again.eval()(**inputs).logits.softmax(-1)[0, 1:-1], expected)


OF_TEXTS: dict[str, dict[str, Any]] = {
    "albert": ALBERT,
    "roformer": {},
    "distilbert": {},
    "electra": {"embedding_size": 16},
    "modernbert": {"local_attention": 4, "num_hidden_layers": 4},
    "modernbert mean": {"local_attention": 4, "num_hidden_layers": 4, "classifier_pooling": "mean"},
    "roberta": {},
    "xlm-roberta": {},
    "camembert": {},
    "mpnet": {},
}


@pytest.mark.parametrize("name", OF_TEXTS)
def test_labels_of_texts_are_read_and_written(name: str, tmp_path: Path) -> None:
    settings = OF_TEXTS[name] | {"num_labels": 3}
    model = theirs(name, settings, transformers.AutoModelForSequenceClassification)
    write_tokenizer(tmp_path / "theirs", name, segments=getattr(model.config, "type_vocab_size", 0) > 1)
    model.save_pretrained(tmp_path / "theirs")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "theirs")
    inputs = tokenizer(TEXTS, return_tensors="pt", padding=True)
    with torch.no_grad():
        expected_nc = model(**inputs).logits
    found_nc = Classifier.load(tmp_path / "theirs").probabilities(TEXTS)
    print("largest difference:", f"{difference(found_nc, expected_nc.softmax(-1).numpy()):.1e}")
    np.testing.assert_allclose(found_nc, expected_nc.softmax(-1), rtol=0, atol=ATOL)
    export_folder(tmp_path / "theirs", tmp_path / "ours")
    again, info = transformers.AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "ours", output_loading_info=True
    )
    assert type(again) is type(model) and not info["missing_keys"] and not info["unexpected_keys"]
    with torch.no_grad():
        np.testing.assert_array_equal(again.eval()(**inputs).logits, expected_nc)


@pytest.mark.parametrize("name", OF_TEXTS)
def test_a_run_that_starts_from_a_family_leaves_by_its_head(name: str, tmp_path: Path) -> None:
    model = theirs(name, OF_TEXTS[name])
    write_tokenizer(tmp_path / "theirs", name, segments=getattr(model.config, "type_vocab_size", 0) > 1)
    model.save_pretrained(tmp_path / "theirs")
    rows = "".join(f"{text},{label}\n" for text in TEXTS for label in ("yes", "no", "so so"))
    (tmp_path / "train.csv").write_text(f"text,label\n{rows}")
    said = [f"init_from={tmp_path / 'theirs'}", f"task.train={tmp_path / 'train.csv'}", "train.steps=2"]
    said += [f"task.eval={tmp_path / 'train.csv'}", f"run_dir={tmp_path / 'run'}", "train.batch_size=4"]
    run = finetune(load_config("classify", said))
    export_run(RunFolder(run), tmp_path / "ours")
    told_nc = Classifier.load(run).probabilities(TEXTS)
    again, info = transformers.AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "ours", output_loading_info=True
    )
    assert again.config.model_type == name.split()[0] and not info["missing_keys"] and not info["unexpected_keys"]
    inputs = transformers.AutoTokenizer.from_pretrained(tmp_path / "ours")(TEXTS, return_tensors="pt", padding=True)
    with torch.no_grad():
        np.testing.assert_allclose(told_nc, again.eval()(**inputs).logits.softmax(-1), rtol=0, atol=ATOL)


def write_tokenizer(folder: Path, name: str, *, segments: bool) -> None:
    """The tokenizer as one of their folders has it."""
    if name.split()[0] in WHOLE:
        make, made_by = WHOLE[name.split()[0]]
        write(folder, make(), tokenizer_class=made_by, **ROLES)
        return
    folder.mkdir()
    (folder / "tokenizer.json").write_text(PIECES.to_hub_json())
    inputs = ["input_ids", *(["token_type_ids"] * segments), "attention_mask"]
    made = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"), model_input_names=inputs, **PIECES.roles
    )
    made.save_pretrained(folder)
