"""Heads of families beside the real `transformers`: labels of texts and tokens, and answers, read, learned, written."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from family_models import HEADS, TEXTS, difference, family_of, saved, torch, transformers

from bertjax import Classifier, finetune, load_config
from bertjax.hub.export import export_folder, export_run
from bertjax.hub.folder import read_task_folder
from bertjax.inference.tagger import Tagger
from bertjax.models.bert import Bert
from bertjax.models.tagger import TokenClassifier
from bertjax.runs.folder import RunFolder

pytestmark = pytest.mark.filterwarnings("default")  # theirs are not ours to mend
ATOL = 1e-5
Tell = Callable[[str, str, float], None]
OF_TOKENS = [name for name in HEADS if not name.startswith("modernbert")]  # whose labels have a layer below them


@pytest.mark.parametrize("name", OF_TOKENS)
def test_labels_of_tokens_are_read_and_written(name: str, tmp_path: Path, tell: Tell) -> None:
    kind = transformers.AutoModelForTokenClassification
    model = saved(tmp_path / "theirs", name, HEADS[name] | {"num_labels": 3}, kind)
    inputs = transformers.AutoTokenizer.from_pretrained(tmp_path / "theirs")(TEXTS[0], return_tensors="pt")
    with torch.no_grad():
        expected = model(**inputs).logits.softmax(-1)[0, 1:-1].numpy()
    of_words = inputs.word_ids()
    first = [of_words.index(number) - 1 for number in range(len(TEXTS[0].split()))]
    (told,) = Tagger.load(tmp_path / "theirs").predict([TEXTS[0]])
    far = difference(np.array(told.probabilities), expected[first].max(-1))
    tell(family_of(name).name, "labels of tokens", far)
    assert far < ATOL
    export_folder(tmp_path / "theirs", tmp_path / "ours")
    again, info = kind.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert type(again) is type(model) and not info["missing_keys"] and not info["unexpected_keys"]
    with torch.no_grad():
        np.testing.assert_array_equal(again.eval()(**inputs).logits.softmax(-1)[0, 1:-1], expected)


@pytest.mark.parametrize("name", [name for name in OF_TOKENS if name != "nomic_bert"])  # which has no such head
def test_answers_are_read_and_written(name: str, tmp_path: Path, tell: Tell) -> None:
    kind = transformers.AutoModelForQuestionAnswering
    model = saved(tmp_path / "theirs", name, HEADS[name], kind)
    inputs = transformers.AutoTokenizer.from_pretrained(tmp_path / "theirs")(TEXTS[0], return_tensors="pt")
    with torch.no_grad():
        told = model(**inputs)
    expected_t2 = np.stack((told.start_logits[0], told.end_logits[0]), -1)
    read, _, _ = read_task_folder(tmp_path / "theirs")
    ids_1t = inputs.input_ids.numpy()
    batch = (ids_1t, 0 * ids_1t, np.arange(ids_1t.size)[None], np.ones_like(ids_1t))
    found_1t2 = TokenClassifier(Bert(read.config), 2).apply({"params": read.params}, *batch)
    far = difference(np.asarray(found_1t2)[0], expected_t2)
    tell(family_of(name).name, "answers", far)
    assert far < ATOL
    export_folder(tmp_path / "theirs", tmp_path / "ours")
    again, info = kind.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert type(again) is type(model) and not info["missing_keys"] and not info["unexpected_keys"]
    with torch.no_grad():
        np.testing.assert_array_equal(again.eval()(**inputs).start_logits, told.start_logits)


@pytest.mark.parametrize("name", HEADS)
def test_labels_of_texts_are_read_and_written(name: str, tmp_path: Path, tell: Tell) -> None:
    kind = transformers.AutoModelForSequenceClassification
    model = saved(tmp_path / "theirs", name, HEADS[name] | {"num_labels": 3}, kind)
    inputs = transformers.AutoTokenizer.from_pretrained(tmp_path / "theirs")(TEXTS, return_tensors="pt", padding=True)
    with torch.no_grad():
        expected_nc = model(**inputs).logits
    found_nc = Classifier.load(tmp_path / "theirs").probabilities(TEXTS)
    far = difference(found_nc, expected_nc.softmax(-1).numpy())
    tell(family_of(name).name, "labels of texts", far)
    assert far < ATOL
    export_folder(tmp_path / "theirs", tmp_path / "ours")
    again, info = kind.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert type(again) is type(model) and not info["missing_keys"] and not info["unexpected_keys"]
    with torch.no_grad():
        np.testing.assert_array_equal(again.eval()(**inputs).logits, expected_nc)


@pytest.mark.parametrize("name", HEADS)
def test_a_run_that_starts_from_a_family_leaves_by_its_head(name: str, tmp_path: Path, tell: Tell) -> None:
    saved(tmp_path / "theirs", name, HEADS[name])
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
        far = difference(told_nc, again.eval()(**inputs).logits.softmax(-1).numpy())
    tell(family_of(name).name, "fine-tuned", far)
    assert far < ATOL
