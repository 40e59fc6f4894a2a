"""A file of texts to a file of vectors: a line a vector, in every format, whatever kills it on the way."""

import dataclasses
import gzip
import io
import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fsspec
import jax
import numpy as np
import pyarrow.parquet
import pytest
import safetensors.numpy
from drawn_params import drawn_params

from bertjax.cli.main import main
from bertjax.config import BertConfig
from bertjax.data.tokenizer.tokenizer import Tokenizer
from bertjax.errors import BertjaxError
from bertjax.inference import text_lines
from bertjax.inference.encode_file import encode_file
from bertjax.inference.encoder import Encoder
from bertjax.inference.partial_vectors import PartialVectors
from bertjax.inference.vector_files import finish
from bertjax.models.bert import Bert

CONFIG = BertConfig(hidden_size=8, num_layers=1, num_heads=2, intermediate_size=16, max_position=20)
WORDS = "a crane is flying he just left".split()
LINES = [" ".join(WORDS[: number % 7]) + ("\the left" if number % 5 == 0 else "") for number in range(1, 65)]
WINDOW = 10  # lines


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    tokenizer = Tokenizer.train([" ".join(WORDS)], min_frequency=1)
    config = dataclasses.replace(CONFIG, vocab_size=tokenizer.vocab_size)
    return Encoder(config, drawn_params(Bert(config)), tokenizer)


@pytest.fixture(autouse=True)
def small_windows(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "bertjax")
    monkeypatch.setattr(Encoder, "tokens_per_window", 8 * WINDOW)


@pytest.fixture
def texts(tmp_path: Path) -> str:
    path = tmp_path / "texts.txt"
    path.write_text("\n".join(LINES), encoding="utf-8")
    return str(path)


def items() -> list[Any]:
    return [tuple(line.split("\t")) if "\t" in line else line for line in LINES]


def partial_of(out: Path) -> Path:
    return out.with_name(f"{out.name}.partial")


class Killed(BaseException):
    """Nothing catches it."""


@pytest.fixture
def kill_after(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, BaseException], None]:
    """Ends the next encoding in so many windows: in the middle of the one after them."""
    whole = PartialVectors.append

    def prepare(windows: int, error: BaseException) -> None:
        left = [windows]

        def append(self: PartialVectors, vectors: Any, window: Any) -> None:
            left[0] -= 1
            if left[0] >= 0:
                return whole(self, vectors, window)
            with open(self.folder / "vectors", "ab") as file:
                file.write(b"half a window")
            raise error

        monkeypatch.setattr(PartialVectors, "append", append)

    yield prepare  # type: ignore[misc]


def goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(Encoder, "tokens_per_window", 8 * WINDOW)


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_a_line_is_a_vector_in_every_format(encoder: Encoder, tmp_path: Path, ending: str) -> None:
    texts = tmp_path / "texts.txt"
    texts.write_bytes(b"\xef\xbb\xbf" + "".join(line + ending for line in LINES).encode())
    expected = encoder.encode(items(), normalize=True)
    for suffix in (".npy", ".safetensors", ".parquet"):
        encode_file(encoder, str(texts), tmp_path / f"v{suffix}", normalize=True)
    vectors = np.load(tmp_path / "v.npy", mmap_mode="r")
    assert vectors.dtype == np.float32 and vectors.shape == (64, 8)
    np.testing.assert_allclose(vectors, expected, rtol=1e-5, atol=1e-6)
    tensors = safetensors.numpy.load_file(tmp_path / "v.safetensors")
    assert tensors.keys() == {"vectors"}
    np.testing.assert_array_equal(tensors["vectors"], vectors)
    table = pyarrow.parquet.read_table(tmp_path / "v.parquet")
    assert table["line"].to_pylist() == list(range(1, 65))
    np.testing.assert_array_equal(np.array(table["vector"].to_pylist(), np.float32), vectors)
    assert not list(tmp_path.glob("*.partial"))


def test_all_tokens_of_a_line(encoder: Encoder, texts: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bertjax.inference.vector_tables._NUMBERS_PER_GROUP", 8 * 16)  # row groups of a few lines
    expected = encoder.encode(items(), pooling="tokens")
    for suffix in (".safetensors", ".parquet"):
        encode_file(encoder, texts, tmp_path / f"v{suffix}", pooling="tokens")
    tensors = safetensors.numpy.load_file(tmp_path / "v.safetensors")
    offsets = tensors["offsets"]
    assert offsets.dtype == np.int64 and len(offsets) == 65 and offsets[-1] == len(tensors["vectors"])
    column = pyarrow.parquet.read_table(tmp_path / "v.parquet")["vectors"].to_pylist()
    assert pyarrow.parquet.ParquetFile(tmp_path / "v.parquet").num_row_groups > 10
    for number, vectors in enumerate(expected):
        mine = tensors["vectors"][offsets[number] : offsets[number + 1]]
        np.testing.assert_allclose(mine, vectors, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(np.array(column[number], np.float32), mine)
    with pytest.raises(BertjaxError, match="cannot hold all tokens.*give a name in .safetensors or .parquet"):
        encode_file(encoder, texts, tmp_path / "v.npy", pooling="tokens")


@pytest.mark.parametrize("name, pooling", [("v.npy", "mean"), ("v.safetensors", "tokens"), ("v.parquet", "cls")])
def test_killed_and_resumed_it_is_the_same_to_the_bit(
    encoder: Encoder,
    texts: str,
    tmp_path: Path,
    kill_after: Callable,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    name: str,
    pooling: Any,
) -> None:
    whole, out = tmp_path / f"whole-{name}", tmp_path / name
    encode_file(encoder, texts, whole, pooling=pooling)
    for windows, done in ((1, 10), (2, 30)):
        kill_after(windows, Killed())
        with pytest.raises(Killed):
            encode_file(encoder, texts, out, pooling=pooling)
        goes_on(monkeypatch)
        assert json.loads((partial_of(out) / "state.json").read_text())["place"][0] == done and not out.exists()
    caplog.clear()
    encode_file(encoder, texts, out, pooling=pooling)
    going_on, done = caplog.messages
    assert f"going on after line 30, up to which {partial_of(out)} holds" in going_on and done.startswith("34 texts in")
    assert out.read_bytes() == whole.read_bytes()
    assert not partial_of(out).exists()


def test_a_kill_while_the_file_is_finished(
    encoder: Encoder, texts: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, out = tmp_path / "whole.safetensors", tmp_path / "v.safetensors"
    encode_file(encoder, texts, whole, pooling="tokens")

    def killed(*_: Any) -> None:
        raise Killed

    monkeypatch.setattr(
        "bertjax.inference.vector_files.os.replace", lambda old, new: killed() if new == out else os.rename(old, new)
    )
    with pytest.raises(Killed):
        encode_file(encoder, texts, out, pooling="tokens")
    goes_on(monkeypatch)
    encode_file(encoder, texts, out, pooling="tokens")
    assert out.read_bytes() == whole.read_bytes()


def test_standard_input_is_read_again_up_to_there(
    encoder: Encoder, texts: str, tmp_path: Path, kill_after: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    def piped() -> None:
        monkeypatch.setattr(text_lines.sys, "stdin", SimpleNamespace(buffer=io.BytesIO(Path(texts).read_bytes())))

    piped()
    kill_after(3, Killed())
    with pytest.raises(Killed):
        encode_file(encoder, "-", tmp_path / "v.npy")
    goes_on(monkeypatch)
    piped()
    encode_file(encoder, "-", tmp_path / "v.npy")
    encode_file(encoder, texts, tmp_path / "whole.npy")
    assert (tmp_path / "v.npy").read_bytes() == (tmp_path / "whole.npy").read_bytes()


def test_it_goes_on_only_as_it_was_begun(
    encoder: Encoder, texts: str, tmp_path: Path, kill_after: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "v.npy"
    kill_after(3, Killed())
    with pytest.raises(Killed):
        encode_file(encoder, texts, out)
    goes_on(monkeypatch)
    before = {path.name: path.read_bytes() for path in partial_of(out).iterdir()}
    with pytest.raises(
        BertjaxError, match=r"v.npy.partial holds vectors made with pooling=default, not cls; .* remove it"
    ):
        encode_file(encoder, texts, out, pooling="cls")
    with pytest.raises(BertjaxError, match="made with normalize=default, not True"):
        encode_file(encoder, texts, out, normalize=True)
    other = Encoder(encoder.config, jax.tree.map(lambda leaf: leaf + 1, encoder._params), encoder.tokenizer)
    with pytest.raises(BertjaxError, match="made with another model"):
        encode_file(other, texts, out)
    for lines in (["other", *LINES[1:]], LINES[:5]):
        (tmp_path / "others.txt").write_text("\n".join(lines))
        with pytest.raises(BertjaxError, match="vectors of other texts than the first 30 lines of .*others.txt"):
            encode_file(encoder, str(tmp_path / "others.txt"), out)
    after = {path.name: path.read_bytes() for path in partial_of(out).iterdir()}
    assert after == before | {"vectors": before["vectors"].removesuffix(b"half a window")}
    os.truncate(partial_of(out) / "vectors", 300)
    with pytest.raises(BertjaxError, match="v.npy.partial is not as it was written; remove it to begin anew"):
        encode_file(encoder, texts, out)
    for damaged in (
        "[]",
        "",
        '{"place": ["30", ""], "rows": 30, "asked": {}}',
        '{"place": [-1, ""], "rows": 30}',
        '{"place": [30, ""], "rows": 30, "record_bytes": "", "asked": {}}',
    ):
        (partial_of(out) / "state.json").write_text(damaged)
        with pytest.raises(BertjaxError, match="is not as it was written"):
            encode_file(encoder, texts, out)


@pytest.mark.parametrize(
    "line, complaint",
    [
        (b"a\xff", r"line 42 of .*texts.txt is not UTF-8 text \(byte 2\)"),
        (b"a\tb\tc", "line 42 of .*texts.txt has 2 tabs; one makes a pair"),
        (b"a " * 30, "line 42 of .*texts.txt has 30 words, but only 18 fit"),
    ],
)
def test_a_line_that_is_put_right_is_gone_on_from(
    encoder: Encoder, texts: str, tmp_path: Path, line: bytes, complaint: str, caplog: pytest.LogCaptureFixture
) -> None:
    lines = Path(texts).read_bytes().split(b"\n")
    Path(texts).write_bytes(b"\n".join([*lines[:41], line, *lines[42:]]))
    with pytest.raises(BertjaxError, match=complaint):
        encode_file(encoder, texts, tmp_path / "v.npy")
    assert partial_of(tmp_path / "v.npy").exists()
    Path(texts).write_bytes(b"\n".join(lines))
    encode_file(encoder, texts, tmp_path / "v.npy")
    assert "going on after line " in caplog.text
    assert np.load(tmp_path / "v.npy").shape == (64, 8)


def test_a_first_line_that_is_wrong_leaves_nothing(encoder: Encoder, texts: str, tmp_path: Path) -> None:
    Path(texts).write_bytes(b"\xff\n")
    with pytest.raises(BertjaxError, match="line 1 of .* is not UTF-8"):
        encode_file(encoder, texts, tmp_path / "v.npy")
    assert [path.name for path in tmp_path.iterdir()] == ["texts.txt"]


def test_no_text_at_all(encoder: Encoder, tmp_path: Path) -> None:
    (tmp_path / "empty.txt").touch()
    for suffix in (".npy", ".safetensors", ".parquet"):
        encode_file(encoder, str(tmp_path / "empty.txt"), tmp_path / f"v{suffix}")
    assert np.load(tmp_path / "v.npy").shape == (0, 8)
    assert safetensors.numpy.load_file(tmp_path / "v.safetensors")["vectors"].shape == (0, 8)
    assert pyarrow.parquet.read_table(tmp_path / "v.parquet").num_rows == 0


@pytest.fixture
def as_in_a_terminal() -> Iterator[None]:
    """SIGINT interrupts; what a shell has started in the background would ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("as_in_a_terminal")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_keeps_what_is_done(
    encoder: Encoder,
    texts: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    number: int,
) -> None:
    whole = PartialVectors.append

    def append(self: PartialVectors, vectors: Any, window: Any) -> None:
        whole(self, vectors, window)
        if window.end.lines == 20:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(PartialVectors, "append", append)
    handler = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt):
        encode_file(encoder, texts, tmp_path / "v.npy")
    assert signal.getsignal(number) == handler
    kept = f"stopped: 20 texts are done and kept in {partial_of(tmp_path / 'v.npy')}; the same command goes on"
    assert kept in caplog.text
    goes_on(monkeypatch)
    encode_file(encoder, texts, tmp_path / "v.npy")
    assert caplog.messages[-1].startswith("44 texts in")


def test_what_is_there_is_left(encoder: Encoder, texts: str, tmp_path: Path) -> None:
    out = tmp_path / "v.npy"
    out.write_bytes(b"mine")
    with pytest.raises(BertjaxError, match="v.npy exists and is left as it is; give another name"):
        encode_file(encoder, texts, out)
    with pytest.raises(BertjaxError, match="there is no folder"):
        encode_file(encoder, texts, tmp_path / "none" / "v.npy")
    with pytest.raises(BertjaxError, match="does not end in .npy, .parquet, .safetensors, .index;"):
        encode_file(encoder, texts, tmp_path / "v.txt")
    with pytest.raises(BertjaxError, match="none.txt is not there; give a file of text, or -"):
        encode_file(encoder, str(tmp_path / "none.txt"), tmp_path / "w.npy")
    assert out.read_bytes() == b"mine" and sorted(path.name for path in tmp_path.iterdir()) == ["texts.txt", "v.npy"]


def test_two_do_not_write_the_same_file(encoder: Encoder, texts: str, tmp_path: Path) -> None:
    out = tmp_path / "v.npy"
    with PartialVectors(out, {"pooling": "mean"}, 8, finish).opened():
        with pytest.raises(BertjaxError, match="v.npy.partial is in use by process .* or give another --out"):
            encode_file(encoder, texts, out)
        assert partial_of(out).is_dir()


def test_unknown_words_are_told_once(encoder: Encoder, tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("a zebra\n" * 64)
    with pytest.warns(UserWarning, match="64 of 128 words, such as zebra") as caught:
        encode_file(encoder, str(tmp_path / "texts.txt"), tmp_path / "v.npy")
    assert len(caught) == 1


# Records.


@pytest.fixture
def records(tmp_path: Path) -> str:
    """The lines as records, with columns of one kind, of several, and in some rows alone."""
    path = tmp_path / "texts.jsonl"
    some: list[dict[str, Any]] = [{"id": id_, "text": LINES[id_].replace("\t", " ")} for id_ in range(64)]
    for number, record in enumerate(some):
        record["size"] = number if number % 2 else number / 2
        record |= {"odd": number if number < 40 else "many", "late": {"a": [number]}} if number > 30 else {}
    path.write_text("".join(json.dumps(record) + "\n" for record in some), encoding="utf-8")
    return str(path)


def test_columns_of_records_stand_beside_their_vectors_whatever_kills_it(
    encoder: Encoder, records: str, tmp_path: Path, kill_after: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bertjax.inference.vector_tables._NUMBERS_PER_GROUP", 8 * 16)
    given = [json.loads(line) for line in Path(records).read_text().splitlines()]
    kill_after(3, Killed())
    with pytest.raises(Killed):
        encode_file(encoder, records, tmp_path / "v.parquet")
    goes_on(monkeypatch)
    with pytest.raises(BertjaxError, match=r"made with keep=default, not \['id'\]"):
        encode_file(encoder, records, tmp_path / "v.parquet", keep=("id",))
    encode_file(encoder, records, tmp_path / "v.parquet")
    table = pyarrow.parquet.read_table(tmp_path / "v.parquet")
    assert table.column_names == ["id", "text", "size", "odd", "late", "vector"]
    assert [str(table.schema.field(name).type) for name in ("id", "size", "odd")] == ["int64", "double", "string"]
    for column in ("id", "text", "size", "late"):
        assert table[column].to_pylist() == [record.get(column) for record in given]
    assert table["odd"].to_pylist() == [None if "odd" not in record else json.dumps(record["odd"]) for record in given]
    vectors = encoder.encode([record["text"] for record in given])
    np.testing.assert_allclose(np.array(table["vector"].to_pylist(), np.float32), vectors, rtol=1e-5, atol=1e-6)


def test_parts_of_a_job_are_the_whole(encoder: Encoder, records: str, tmp_path: Path) -> None:
    encode_file(encoder, records, tmp_path / "whole.npy")
    whole = np.load(tmp_path / "whole.npy")
    for part in (1, 2, 3):
        out = tmp_path / f"{part}.parquet"
        encode_file(encoder, records, out, part=(part, 3), keep=("id",))
        table = pyarrow.parquet.read_table(out)
        assert table["id"].to_pylist() == list(range(64))[part - 1 :: 3] and table.column_names == ["id", "vector"]
        mine = np.array(table["vector"].to_pylist(), np.float32)
        np.testing.assert_allclose(mine, whole[part - 1 :: 3], rtol=1e-5, atol=1e-6)


def test_a_bad_record_is_named_and_gone_on_from(encoder: Encoder, records: str, tmp_path: Path) -> None:
    lines = Path(records).read_text().splitlines(keepends=True)
    Path(records).write_text("".join([*lines[:41], '{"text": "a crane is flying he just left. " }\n', *lines[42:]]))
    with pytest.raises(BertjaxError, match="line 42 of .*texts.jsonl has no column 'id'"):
        encode_file(encoder, records, tmp_path / "v.parquet", keep=("id",))
    Path(records).write_text("".join(lines))
    encode_file(encoder, records, tmp_path / "v.parquet", keep=("id",))
    assert pyarrow.parquet.read_table(tmp_path / "v.parquet")["id"].to_pylist() == list(range(64))
    with pytest.raises(BertjaxError, match=r"w.npy has vectors alone, and no columns \(--keep\); give a name in .parq"):
        encode_file(encoder, records, tmp_path / "w.npy", keep=("id",))


# Packed texts.


@pytest.mark.parametrize("ending", [".gz", ".GZ", ".zst"])
def test_packed_texts_are_read_as_they_were(encoder: Encoder, texts: str, tmp_path: Path, ending: str) -> None:
    whole = Path(texts).read_bytes()
    pack = gzip.compress if ending != ".zst" else pytest.importorskip("backports.zstd").compress
    packed = tmp_path / f"texts.txt{ending}"
    packed.write_bytes(pack(whole[:500]) + pack(whole[500:]))
    for source, out in ((texts, "plain.npy"), (str(packed), "packed.npy")):
        encode_file(encoder, source, tmp_path / out)
    assert (tmp_path / "packed.npy").read_bytes() == (tmp_path / "plain.npy").read_bytes()


@pytest.mark.parametrize(
    "content, told",
    [
        (b"a crane\n", "Not a gzipped file"),
        (gzip.compress(b"a crane\n" * 99)[:-9], "ended before the end-of-stream"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
    ],
)
def test_packed_texts_that_are_none(encoder: Encoder, tmp_path: Path, content: bytes, told: str) -> None:
    packed = tmp_path / "texts.gz"
    packed.write_bytes(content)
    with pytest.raises(BertjaxError, match=f"--input {packed} .*{told}"):
        encode_file(encoder, str(packed), tmp_path / "v.npy")
    assert not (tmp_path / "v.npy").exists() and packed.read_bytes() == content


# Figures.


def test_the_rate_is_without_compilation(
    encoder: Encoder, texts: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new shape's program is made to take a minute, on a clock of its own."""
    clock = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: clock[0])
    engine, shapes = encoder.engine, set()
    forward = engine.forward

    def slow(params: Any, batch: Any) -> Any:
        clock[0] += 1.0 if batch.shape in shapes else 61.0
        shapes.add(batch.shape)
        return forward(params, batch)

    monkeypatch.setattr(engine, "forward", slow)
    monkeypatch.setattr(engine, "_programs", set())
    encode_file(encoder, texts, tmp_path / "v.npy")
    compiling = 61.0 * len(shapes)
    assert (
        f" s, {64 / (clock[0] - compiling):,.0f} texts/s (compilation took {compiling:,.1f} s more);"
        in caplog.messages[-1]
    )


def test_texts_and_vectors_at_urls(
    encoder: Encoder,
    texts: str,
    tmp_path: Path,
    store: Any,
    kill_after: Callable[[int, BaseException], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What a kill cuts short goes on by the same command, and is uploaded whole."""
    encode_file(encoder, texts, tmp_path / "here.npy")
    monkeypatch.setattr(Encoder, "load", lambda *_, **__: encoder)
    memory, append = fsspec.filesystem("memory"), PartialVectors.append
    memory.put(texts, "/bucket/texts.txt")
    command = ["encode", "model", "--input", "memory://bucket/texts.txt", "--out", "memory://bucket/there.npy"]
    kill_after(2, KeyboardInterrupt())
    assert main(command) == 130 and memory.ls("/bucket", detail=False) == ["/bucket/texts.txt"]
    appended: list[Any] = []
    monkeypatch.setattr(PartialVectors, "append", lambda *args: appended.append(append(*args)))
    assert main(command) == 0 and 0 < len(appended) <= len(LINES) // WINDOW - 1
    assert memory.cat("/bucket/there.npy") == (tmp_path / "here.npy").read_bytes()
