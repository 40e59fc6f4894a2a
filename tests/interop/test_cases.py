"""Folders as people have them, and what transformers and sentence-transformers make of each, which need not be here.

$BERTJAX_CASES names a folder with, for each case, NAME/folder, which is the model's, and beside it
  texts.json    `situation`, a line; `wanted`, "equal" or "refusal"; `texts`, `pairs` and `masked`; `peers`, versions
  expected.npz  float32, for number N of each list: ids_N [t], hidden_N [t, d] of texts[N]; pair_ids_N, pair_hidden_N;
                mask_ids_N [m, 3], mask_logits_N [m, v], the likeliest ids and all logits at each mask of masked[N];
                sentence [texts, e], where it is a folder of sentence-transformers
A case is equal in all of these or is refused for the reason below; a family that is read from now on loses its line.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bertjax.errors import BertjaxError
from bertjax.hub.export import export_folder
from bertjax.inference.encoder import Encoder

os.environ["HF_HUB_OFFLINE"] = "1"  # nothing is fetched
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # unknown words, and weights that are left over

CLOSE = 1e-5  # for values about 1
REFUSED = {
    "nan_weights": r"layer.1.output.dense.weight has 1 of 2,048 numbers that are NaN or infinite",
    "pytorch_bin": "has no model.safetensors; pytorch_model.bin is a pickle",
    "roformer": "embed_positions.weight has other angles",  # random ones
}


def cases() -> Iterator[Any]:
    named = os.environ.get("BERTJAX_CASES")
    if not named or not Path(named).is_dir():
        reason = f"names {named}, which is no folder" if named else "names no folder of them"
        yield pytest.param(None, marks=pytest.mark.skip(reason=f"no case is tried: BERTJAX_CASES {reason}"))
        return
    for home in sorted(Path(named).iterdir()):
        if (home / "texts.json").is_file():
            yield pytest.param(home, id=home.name)


def close(what: str, got: Any, wanted: np.ndarray) -> None:
    np.testing.assert_allclose(got, wanted, rtol=0, atol=CLOSE, err_msg=what)


def ids(encoder: Encoder, *texts: str) -> list[int]:
    split = [encoder.tokenizer.split(text) for text in texts]
    return encoder.tokenizer.ids(encoder.tokens_read(*split, truncate=True))


def check_tokens(encoder: Encoder, texts: list[str] | list[list[str]], wanted: Any, prefix: str) -> None:
    for number, text in enumerate(texts):
        parts = [text] if isinstance(text, str) else text
        assert ids(encoder, *parts) == wanted[f"{prefix}ids_{number}"].tolist(), text
        hidden_td = wanted[f"{prefix}hidden_{number}"]
        (got_td,) = encoder.encode([text if isinstance(text, str) else tuple(text)], pooling="tokens", truncate=True)
        close(f"{text}", got_td, hidden_td)
        (split_td,) = encoder.encode_tokens(*map(encoder.tokenizer.split, parts), truncate=True)
        close(f"{text}, split", split_td, hidden_td)


def check_masks(encoder: Encoder, texts: list[str], wanted: Any) -> None:
    for number, text in enumerate(texts):
        ids_m3, logits_mv = wanted[f"mask_ids_{number}"], wanted[f"mask_logits_{number}"].astype(np.float64)
        likely_mv = np.exp(logits_mv - logits_mv.max(-1, keepdims=True))
        likely_mv /= likely_mv.sum(-1, keepdims=True)
        guesses = encoder.fill_mask(text, top=3)
        assert [[guess.word for guess in at] for at in guesses] == [encoder.tokenizer.words(at) for at in ids_m3], text
        got_m3 = [[guess.probability for guess in at] for at in guesses]
        close(text, got_m3, np.take_along_axis(likely_mv, ids_m3, -1))


def check_all(folder: Path, given: dict[str, Any], wanted: Any) -> None:
    encoder = Encoder.load(folder)
    check_tokens(encoder, given["texts"], wanted, "")
    check_tokens(encoder, given["pairs"], wanted, "pair_")
    if "mask_ids_0" in wanted:
        check_masks(encoder, given["masked"], wanted)
    if "sentence" in wanted:
        close("sentence", encoder.encode(given["texts"], truncate=True), wanted["sentence"])


def read(home: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    with np.load(home / "expected.npz") as file:
        return json.loads((home / "texts.json").read_text(encoding="utf-8")), dict(file)


@pytest.mark.parametrize("home", list(cases()))
def test_it_is_equal_or_refused_for_a_stated_reason(home: Path, tmp_path: Path) -> None:
    """And is still equal when we have written it anew."""
    given, wanted = read(home)
    assert given["wanted"] == "equal" or home.name in REFUSED, "say why it is refused"
    if home.name in REFUSED:
        with pytest.raises(BertjaxError, match=REFUSED[home.name]):
            Encoder.load(home / "folder")
        return
    check_all(home / "folder", given, wanted)
    export_folder(home / "folder", tmp_path / "again")
    check_all(tmp_path / "again", given, wanted)


@pytest.mark.filterwarnings("default")  # theirs are not ours to mend
@pytest.mark.parametrize("home", [case for case in cases() if case.id not in REFUSED])
def test_peers_read_what_we_write_anew(home: Path, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed; make test-interop installs it")
    transformers = pytest.importorskip("transformers", reason="it is not installed; make test-interop installs it")
    given, wanted = read(home)
    export_folder(home / "folder", tmp_path / "again")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "again")
    model = transformers.AutoModel.from_pretrained(tmp_path / "again", attn_implementation="eager").eval()
    for prefix, texts in (("", given["texts"]), ("pair_", given["pairs"])):
        for number, text in enumerate(texts):
            batch = tokenizer(*([text] if isinstance(text, str) else text), return_tensors="pt")
            assert batch["input_ids"][0].tolist() == wanted[f"{prefix}ids_{number}"].tolist(), text
            with torch.no_grad():
                close(f"{text}", model(**batch).last_hidden_state[0].numpy(), wanted[f"{prefix}hidden_{number}"])
    if "sentence" in wanted:
        st = pytest.importorskip("sentence_transformers", reason="it is not installed; make test-interop installs it")
        encoder = st.SentenceTransformer(str(tmp_path / "again"), device="cpu")
        close("sentence", encoder.encode(given["texts"]), wanted["sentence"])
