"""Hostile files: each is refused in a line, within seconds, and without the memory that it asks for."""

import json
import resource
import shutil
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from refusals import refusal

from bertjax.config.recipes import load_config
from bertjax.data.sources import columnar
from bertjax.data.sources.files import documents
from bertjax.data.sources.formats import Layout
from bertjax.data.sources.lines import Part
from bertjax.data.tokenizer import files
from bertjax.data.tokenizer.files import load_tokenizer
from bertjax.hub.folder import read_folder
from bertjax.hub.tensors import read_tensors
from bertjax.inference import text_lines
from bertjax.inference.text_lines import open_lines
from bertjax.runs.folder import RunFolder

BERT = Path(__file__).parents[1] / "reference" / "bert"
SECONDS, BYTES = 2.0, 2**28  # that any of them may take


@pytest.fixture(autouse=True)
def bounded() -> Iterator[None]:
    start, peak = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert time.process_time() - start < SECONDS
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak) * 1024 < BYTES


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return shutil.copytree(BERT, tmp_path / "bert")


def changed(folder: Path, name: str, **changes: object) -> Path:
    file = folder / name
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | changes), encoding="utf-8")
    return folder


# Configurations.


@pytest.mark.parametrize(
    "changes",
    [
        {"num_hidden_layers": 10**9},
        {"hidden_size": 2**30},
        {"vocab_size": 2**31 - 1},
        {"max_position_embeddings": 2**30},
        {"intermediate_size": 2**30},
        {"num_hidden_layers": -1},
        {"hidden_size": float("nan")},
        {"layer_norm_eps": float("inf")},
        {"hidden_size": 10**400},
    ],
)
def test_a_model_beyond_reason(folder: Path, changes: dict[str, object]) -> None:
    assert "config.json" in refusal(read_folder, changed(folder, "config.json", **changes))


@pytest.mark.parametrize(
    "content", ["[" * 10**6, '{"a":' * 10**5, '{"a": "' + "x" * 2**25, '{"a": ' + "9" * 10**6 + "}"]
)
def test_json_without_end(folder: Path, content: str) -> None:
    (folder / "config.json").write_text(content)
    assert "config.json" in refusal(read_folder, folder)


BOMB = "\n".join(["a0: &a0 {x: 1}", *(f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}" for n in range(1, 30))])


@pytest.mark.parametrize(
    "text, why",
    [
        (BOMB, r"repeats several values at once"),
        ("data: &a {path: *a}", r"\*a repeats several values at once"),
        ("\n".join(f"k{number}: 1" for number in range(500_000)), "has more than 65,536 bytes"),
        ("seed: " + ":".join(["59"] * 20_000), "more than 308 digits"),
        ("seed: " + "9" * 60_000, "more than 308 digits"),
        ("seed: " + "[" * 50_000, "nested too deeply"),
        ("seed: !!python/object/apply:os.system [true]", "is not YAML"),
    ],
)
def test_recipes_that_multiply(tmp_path: Path, text: str, why: str) -> None:
    (tmp_path / "r.yaml").write_text(text)
    assert why.replace("\\", "") in refusal(load_config, tmp_path / "r.yaml")


# Vocabularies.


@pytest.mark.parametrize("number", [4294967295, 2**24, 7, 10**30])
def test_numbers_of_tokens(folder: Path, number: int) -> None:
    tree = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    tree["model"]["vocab"]["another"] = number
    said = {refusal(load_tokenizer, changed(folder, "tokenizer.json", **tree)) for _ in range(5)}
    assert len(said) == 1 and "have not each a number of its own below 2**24" in said.pop()


@pytest.mark.parametrize("name", ["tokenizer.json", "vocab.txt"])
def test_a_vocabulary_beyond_reason(folder: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MOST_OF_VOCABULARY", 1000)
    path = folder / name
    path.write_text("x" * 1001)
    assert f"{path} has more than 1,000 bytes" in refusal(load_tokenizer, path)


def test_a_pattern_that_takes_exponential_time(folder: Path) -> None:
    """No pattern of a file is ever run: of another kind of tokenizer, it is refused."""
    hard = {"type": "Split", "pattern": {"Regex": "(a|a?)+$"}, "behavior": "Isolated", "invert": False}
    (folder / "tokenizer_config.json").write_text("{}")
    (folder / "config.json").write_text("{}")
    assert "another kind" in refusal(load_tokenizer, changed(folder, "tokenizer.json", pre_tokenizer=hard))


# Tensors.


def safetensors(header: object, data: bytes = b"", length: int | None = None) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


FLOATS = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    "content",
    [
        safetensors({}, length=2**63),
        safetensors({"a": FLOATS}, length=10**9),
        safetensors({"a": FLOATS, "b": FLOATS}, bytes(8)),  # both in one place
        safetensors({"a": FLOATS | {"shape": [2**40, 2**40]}}, bytes(8)),
        safetensors({"a": FLOATS | {"shape": [-2]}}, bytes(8)),
        safetensors({"a": FLOATS | {"dtype": "O"}}, bytes(8)),
        safetensors({"a": FLOATS | {"data_offsets": [8, 0]}}, bytes(8)),
        safetensors({"a": FLOATS | {"data_offsets": [0, 2**62]}}, bytes(8)),
        safetensors({"a": FLOATS}, bytes(4)),
        safetensors([1, 2]),
    ],
)
def test_headers_of_safetensors(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.safetensors").write_bytes(content)
    assert "model.safetensors cannot be read" in refusal(read_tensors, tmp_path)


@pytest.mark.parametrize(
    "name", ["../model.safetensors", "/etc/hostname", "a/b.safetensors", "..", "model\0.safetensors"]
)
def test_shards_stay_in_their_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / "model.safetensors").write_bytes(safetensors({"a": FLOATS}, bytes(8)))
    (inside := tmp_path / "inside").mkdir()
    (inside / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    assert f"{inside} has no " in refusal(read_tensors, inside)


def test_arrays_of_objects(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    header = b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }".ljust(117) + b"\n"
    evil = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + b"cos\nsystem\n(S'true'\ntR."
    (tmp_path / "run" / "word_counts.npy").write_bytes(evil)
    assert "word_counts.npy cannot be read: Array can't be memory-mapped: Python objects" in refusal(
        RunFolder(tmp_path / "run").word_counts
    )
    shape = b"{'descr': '<i8', 'fortran_order': False, 'shape': (1152921504606846975,), }".ljust(117) + b"\n"
    (tmp_path / "run" / "word_counts.npy").write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", 118) + shape)
    assert "word_counts.npy cannot be read" in refusal(RunFolder(tmp_path / "run").word_counts)


# Texts.


def test_a_little_parquet_that_stands_for_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columnar, "_LEAST_BOUND", 1 << 16)
    monkeypatch.setattr(columnar, "_RATIO", 10)
    repeated = pyarrow.DictionaryArray.from_arrays(np.zeros(10**4, np.int32), ["It flies. " * 20])
    pyarrow.parquet.write_table(pyarrow.table({"text": repeated}), tmp_path / "a.parquet")
    assert (tmp_path / "a.parquet").stat().st_size < 1 << 15
    said = refusal(lambda: [*documents([Part(str(tmp_path / "a.parquet"))], Layout())])
    assert "a.parquet has " in said and "stands for 10 times as many" in said


@pytest.mark.parametrize("footer", [b"\xff\xff\xff\x7fPAR1", b"\0\0\0\0PAR1", b"\x10\0\0\0PAR1", b""])
def test_footers_of_parquet(tmp_path: Path, footer: bytes) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1" + bytes(64) + footer)
    assert "a.parquet" in refusal(lambda: [*documents([Part(str(tmp_path / "a.parquet"))], Layout())])


def test_a_line_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_lines, "LONGEST_LINE", 1000)
    (tmp_path / "a.txt").write_text(f"{'x' * 999}\n{'x' * 1001}\n")
    with open_lines(str(tmp_path / "a.txt")) as (lines, _):
        assert len(next(lines)) == 1000
        assert f"line 2 of {tmp_path}/a.txt has more than 1,000 bytes; cut it" in refusal(next, lines)
