"""An encoder in one file: in a process that has JAX alone it says what ours says, for any batch and length."""

import dataclasses
import functools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from bertjax.cli.main import main
from bertjax.config import BertConfig, Config
from bertjax.errors import BertjaxError
from bertjax.hub import stablehlo
from bertjax.inference.encoder import Encoder
from bertjax.inference.pretrained import load
from bertjax.models.bert import Bert
from bertjax.train.pretrain import pretrain

pytest.importorskip("flatbuffers", reason="flatbuffers, which the extra bertjax[stablehlo] brings, is not installed")
BERT = Path(__file__).parents[1] / "reference" / "bert"

# Says what the file says of every batch that it is given.
ALONE = """
import sys
import jax.export, numpy
encode = jax.jit(jax.export.deserialize(open(sys.argv[1], "rb").read()).call)
batches = numpy.load(sys.argv[2])
numpy.savez(sys.argv[3], **{name: encode(*batch) for name, batch in batches.items()})
assert not {"bertjax", "flax", "tokenizers"} & set(sys.modules)
"""


def batch(rng: np.random.Generator, b: int, t: int, *, vocab_size: int) -> np.ndarray:
    """Tokens, segments and mask [3, b, t]; every row but the first has padding."""
    lengths = np.array([t, *rng.integers(1, t + 1, b - 1)])
    mask_bt = np.arange(t) < lengths[:, None]
    return np.stack([rng.integers(0, vocab_size, (b, t)), rng.integers(0, 2, (b, t)), mask_bt]).astype(np.int32)


def test_it_says_what_our_encoder_says(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    file, batches, said = tmp_path / "deep" / "bert.hlo", tmp_path / "batches.npz", tmp_path / "said.npz"
    assert main(["export", str(BERT), str(file), "--format", "stablehlo"]) == 0
    out = capsys.readouterr().out
    assert {path.name for path in file.parent.iterdir()} == {"bert.hlo", "bert.tokenizer.json"}
    rng, encoder = np.random.default_rng(0), Encoder.load(BERT)
    encode = jax.jit(functools.partial(Bert(encoder.config).apply, method="encode"))
    made = {f"{b} {t}": batch(rng, b, t, vocab_size=23) for b, t in [(1, 1), (3, 20), (5, 7)]}
    np.savez(batches, **made)
    subprocess.run([sys.executable, "-c", ALONE, str(file), str(batches), str(said)], check=True, cwd=tmp_path)
    with np.load(said) as arrays:
        theirs = dict(arrays)
    for name, (tokens_bt, segments_bt, mask_bt) in made.items():
        assert theirs[name].shape == (*tokens_bt.shape, 8) and theirs[name].dtype == np.float32
        assert not theirs[name][mask_bt == 0].any()
        positions_bt = np.broadcast_to(np.arange(tokens_bt.shape[1]), tokens_bt.shape)
        ours = encode({"params": encoder._params}, tokens_bt, segments_bt, positions_bt, mask_bt)
        np.testing.assert_allclose(theirs[name], np.where(mask_bt[:, :, None], ours, 0), atol=1e-6)
    # The lines that were printed, as they were printed.
    example = "\n".join(line.strip() for line in out.splitlines()[1:]).replace("encode(*", "vectors = encode(*")
    example += f"\nnumpy.save({str(tmp_path / 'crane.npy')!r}, vectors)"
    subprocess.run([sys.executable, "-c", example], check=True, cwd=tmp_path)
    ours = encoder.encode_tokens(encoder.tokenizer.split("a crane is flying"))
    # Which the encoder computes in a longer row, where products round otherwise.
    np.testing.assert_allclose(np.load(tmp_path / "crane.npy"), ours, atol=4e-6)


MODERN: dict[str, Any] = {"embedding_norm": False, "norm": "pre", "norm_kind": "rms"}
MODERN |= {"positions": "rotary", "biases": False, "hidden_act": "geglu", "nsp_features": "pair"}


@pytest.mark.usefixtures("one_device")
def test_a_run(tiny: Config, tmp_path: Path) -> None:
    """Of a model for most of which Hugging Face's format has no place."""
    run = pretrain(dataclasses.replace(tiny, model=dataclasses.replace(tiny.model, **MODERN)))
    stablehlo.export(*load(run), tmp_path / "bert")
    from jax import export

    program = export.deserialize((tmp_path / "bert").read_bytes())
    assert program.platforms == ("cpu", "cuda")
    encoder = Encoder.load(run)
    ids = [2, *encoder.tokenizer.ids(["the", "noun1"]), 3]
    vectors = program.call(*np.array([[ids], [[0] * 4], [[1] * 4]], np.int32))
    np.testing.assert_allclose(vectors, encoder.encode_tokens(["the", "noun1"]), atol=1e-6)
    with pytest.raises(ValueError, match="shapes"):  # as many positions as the model has
        program.call(*np.ones((3, 1, 33), np.int32))
    assert json.loads((tmp_path / "bert.tokenizer.json").read_text())["model"]["vocab"]["<mask>"] == 4


def test_nothing_that_exists_is_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("bert.hlo", "bert.tokenizer.json"):
        (tmp_path / name).write_text("kept")
        with pytest.raises(BertjaxError, match=f"{name} exists and is left as it is; give another name"):
            stablehlo.export(*load(BERT), tmp_path / "bert.hlo")
        assert [path.read_text() for path in tmp_path.iterdir()] == ["kept"]
        (tmp_path / name).unlink()
    with pytest.raises(BertjaxError, match="it has neither config.yaml nor config.json"):
        stablehlo.export(*load(tmp_path), tmp_path / "bert.hlo")
    replace = os.replace

    def full_in_the_middle(source: Path, target: Path) -> None:
        if target.suffix == ".hlo":
            raise OSError(28, "No space left on device")
        replace(source, target)

    monkeypatch.setattr("os.replace", full_in_the_middle)
    with pytest.raises(BertjaxError, match="cannot write .*bert.hlo: No space left on device"):
        stablehlo.export(*load(BERT), tmp_path / "bert.hlo")
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(BertjaxError, match=r"pip install 'bertjax\[stablehlo\]'"):
        stablehlo.export(*load(BERT), tmp_path / "bert.hlo")


@pytest.mark.parametrize("name", ["/", ".", ".."])
def test_a_folder_is_no_name_for_a_file(name: str) -> None:
    with pytest.raises(BertjaxError, match="exists and is left as it is; give another name"):
        stablehlo.export(BertConfig.textbook(vocab_size=20), {}, Any, Path(name))  # type: ignore[arg-type]
