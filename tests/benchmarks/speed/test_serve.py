"""Figures of servers: of rows as hey writes them."""

import json
from pathlib import Path

import pytest

from benchmarks.speed import serve
from bertjax.errors import BertjaxError


def test_figures_of_rows() -> None:
    rows = [{"response-time": 0.001 * (number + 1), "offset": 0.01 * number} for number in range(100)]
    assert serve.percentile(rows, 0.5) == pytest.approx(51) and serve.percentile(rows, 0.99) == pytest.approx(100)
    assert serve.per_second(rows) == pytest.approx(100 / (0.99 + 0.1))


def test_bodies_and_a_missing_hey(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [f"{'a ' * number}sentence" for number in range(99)]
    monkeypatch.setattr(serve, "sentences", lambda: texts)
    bodies = serve.write_bodies(tmp_path)
    assert json.loads(bodies["one"].read_text()) == {"model": "model", "input": [texts[49]]}
    assert json.loads(bodies["many"].read_text())["input"] == texts[:64]
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BertjaxError, match="hey makes the load, and is not installed"):
        serve.check_hey()
    (tmp_path / "hey").write_text("#!/bin/sh\necho response-time,status-code,offset; echo 0.1,200,0; echo 0.2,500,0\n")
    (tmp_path / "hey").chmod(0o755)
    with pytest.raises(BertjaxError, match="1 of 2 requests were not answered by 200"):
        serve.run_hey("http://127.0.0.1", bodies["one"], 1, ["-n", "1"])


def test_the_peers_model_is_exported_once_by_its_own_tool(tmp_path: Path) -> None:
    tool, folder = tmp_path / "bin" / "optimum-cli", tmp_path / "onnx"
    tool.parent.mkdir()
    tool.write_text("#!/bin/sh\necho no such model >&2\nexit 1\n")
    tool.chmod(0o755)
    with pytest.raises(BertjaxError, match="optimum-cli cannot export model, saying: no such model"):
        serve.exported(tmp_path, Path("model"), folder)
    tool.write_text('#!/bin/sh\nfor last; do :; done\nmkdir "$last" && echo "$4" > "$last/model.onnx"\n')
    for _ in range(2):
        assert (serve.exported(tmp_path, Path("model"), folder) / "model.onnx").read_text() == "model\n"
    names = serve.contestants({}, tmp_path, replicas=2)
    assert [*names][:3] == ["ours", "ours, bfloat16", "ours, 2 behind haproxy"]
    process = names["infinity, ONNX"].make(Path("model"), 1, tmp_path / "log")
    assert names["infinity, torch"].path == "/embeddings" and process.url == "http://127.0.0.1:1"
