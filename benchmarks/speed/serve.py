"""`python -m benchmarks serve`: the server under load on loopback, beside others; load is made by hey."""

import csv
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import venv
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.balanced import balanced
from benchmarks.environment import with_checkout
from benchmarks.films import minilm, sentences
from benchmarks.serving_process import ServingProcess, free_port, ours
from benchmarks.speed.contest import Figures, ratios, summarise
from benchmarks.speed.table import Column, aligned, describe_machine, gibibytes, number, ratio, seconds
from bertjax.errors import BertjaxError
from bertjax.storage.cache import cache_folder

COLUMNS = (
    Column("one_p50_ms", "alone, p50 ms", number),
    Column("one_p99_ms", "p99 ms", number),
    Column("many_per_second", "32 at once, req/s", number),
    Column("many_p50_ms", "p50 ms", number),
    Column("many_p99_ms", "p99 ms", number),
    Column("texts_per_second", "64 a request, texts/s", number),
    Column("memory_bytes", "memory", gibibytes),
    Column("ready_seconds", "ready after", seconds),
)
_INFINITY = (
    *("infinity-emb[server,torch,optimum]==0.0.78", "sentence-transformers<4", "torch==2.13.0"),
    *("optimum==2.1.0", "optimum-onnx==0.1.0", "onnx", "accelerate"),
)
_TEXTS = 64  # of the larger request
_AT_ONCE, _LARGE_AT_ONCE = 32, 4
_WARM = 20  # requests before those that count


class Contestant(NamedTuple):
    """A server, and where it takes the body of OpenAI's embeddings."""

    make: Callable[[Path, int, Path], ServingProcess]  # of the model's folder, a port and a log
    path: str


def contestants(
    environment: Mapping[str, str], infinity: Path | None, replicas: int | None = None
) -> dict[str, Contestant]:
    """Returns the servers by name.

    Args:
      environment: of ours.
      infinity: the virtual environment of infinity-emb; None leaves it out.
      replicas: of ours behind a balancer; None leaves them out.
    """

    def of_ours(precision: str) -> Contestant:
        return Contestant(
            lambda model, port, log: ours(model, environment, port, log, "--precision", precision), "/v1/embeddings"
        )

    def of_infinity(*options: str, onnx: bool = False) -> Contestant:
        def make(model: Path, port: int, log: Path) -> ServingProcess:
            assert infinity is not None
            folder = exported(infinity, model, log.parent / "infinity-onnx") if onnx else model
            # Its ONNX engine finds the file in a local folder only where that is the one it runs in.
            command = [str(infinity / "bin" / "infinity_emb"), "v2", "--model-id", ".", "--port", str(port)]
            command += ["--host", "127.0.0.1", "--served-model-name", "model", "--device", "cpu", *options]
            quiet = {"DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1", "HF_HOME": str(log.parent / "infinity-home")}
            return ServingProcess(command, os.environ | quiet, port, log, folder=folder)

        return Contestant(make, "/embeddings")

    found = {"ours": of_ours("float32"), "ours, bfloat16": of_ours("bfloat16")}
    if replicas is not None:

        def behind(model: Path, port: int, log: Path) -> ServingProcess:
            log.with_suffix("").mkdir(exist_ok=True)
            return balanced(model, environment, port, log.with_suffix(""), replicas)

        found[f"ours, {replicas} behind haproxy"] = Contestant(behind, "/v1/embeddings")
    if infinity is not None:
        for dtype, name in (("float32", "infinity, torch"), ("bfloat16", "infinity, bfloat16")):
            found[name] = of_infinity("--engine", "torch", "--dtype", dtype)
        found["infinity, ONNX"] = of_infinity("--engine", "optimum", "--pooling-method", "mean", onnx=True)
    return found


def exported(infinity: Path, model: Path, folder: Path) -> Path:
    """Returns the folder of the model in ONNX, which optimum makes there unless it is there.

    Args:
      infinity: the virtual environment that has optimum.

    Raises:
      BertjaxError: optimum cannot.
    """
    if not folder.exists():
        command = [str(infinity / "bin" / "optimum-cli"), "export", "onnx", "--model", str(model)]
        command += ["--library", "transformers", "--task", "feature-extraction", str(folder)]
        done = subprocess.run(command, env=os.environ | {"HF_HUB_OFFLINE": "1"}, capture_output=True, text=True)
        if done.returncode:
            said = done.stderr.strip().splitlines() or ["nothing"]
            raise BertjaxError(f"optimum-cli cannot export {model}, saying: {said[-1]}")
    return folder


def measure(
    folder: Path,
    environment: Mapping[str, str],
    say: Callable[[str], None],
    *,
    rounds: int,
    seconds: float,
    infinity: Path | None,
    replicas: int | None = None,
    model: Path | None = None,
) -> dict[str, Any]:
    """Returns the report, as `--json` writes it.

    Args:
      seconds: that each of the three loads lasts.
      infinity, replicas: as of `contestants`.
      model: a folder of sentence-transformers; by default MiniLM.
    """
    check_hey()
    model = model or minilm()
    bodies = write_bodies(folder)
    runs: dict[str, list[Figures]] = {}
    for turn in range(1, rounds + 1):
        for name, contestant in contestants(with_checkout(environment), infinity, replicas).items():
            say(f"round {turn} of {rounds}: {name}")
            port = free_port()
            with contestant.make(model, port, folder / f"{name}.txt") as server:
                runs.setdefault(name, []).append(_measured(server, contestant.path, bodies, seconds))
                server.end(signal.SIGTERM)
    by_name = {name: summarise(of_name) for name, of_name in runs.items()}
    peers = [name for name in runs if not name.startswith("ours")]
    return {
        "bench": "serve",
        "machine": describe_machine(()),
        "load": f"hey, on the same cores: one text of {len(_median(sentences()).split())} words a request, or {_TEXTS}",
        "rounds": rounds,
        "seconds": seconds,
        "contestants": by_name,
        "ratios": {
            peer: {ours: ratios(runs[ours], runs[peer]) for ours in runs if ours not in peers} for peer in peers
        },
    }


def render(report: dict[str, Any]) -> str:
    """Returns the report as a table."""
    cells = [["", *(column.title for column in COLUMNS)]]
    for name, figures in report["contestants"].items():
        cells.append([name, *(column.show(figures[column.key]) for column in COLUMNS)])
    for peer, of_peer in report["ratios"].items():
        for name, ratios_of in of_peer.items():
            cells.append([f"{name} / {peer}", *(ratio(ratios_of[column.key]["median"]) for column in COLUMNS)])
    machine = report["machine"]
    heading = f"{machine['processor']}, {machine['cores']} cores; {report['load']}; {report['rounds']} rounds"
    return "\n".join([heading, *aligned(cells)])


def check_hey() -> None:
    """Raises BertjaxError where the program that makes the load is missing."""
    if shutil.which("hey") is None:
        raise BertjaxError("hey makes the load, and is not installed; 'apt install hey', or from its author's releases")


def infinity_environment(say: Callable[[str], None]) -> Path:
    """Returns a virtual environment that has infinity-emb, which wants older packages than ours; made once."""
    folder = cache_folder() / "benchmarks" / "infinity-emb-0.0.78"
    if not (folder / "bin" / "optimum-cli").exists():
        say(f"installing {_INFINITY[0]} into {folder}")
        venv.create(folder, with_pip=True, clear=True)
        done = subprocess.run([folder / "bin" / "pip", "install", "-q", *_INFINITY], stdout=sys.stderr)
        if done.returncode:
            raise BertjaxError(f"pip cannot install {_INFINITY[0]}; see above")
    return folder


def write_bodies(folder: Path) -> dict[str, Path]:
    """Writes the two bodies that are sent: a text of the median length, and many of all lengths."""
    texts = sentences()
    bodies = {"one": [_median(texts)], "many": texts[:_TEXTS]}
    for name, inputs in bodies.items():
        (folder / f"{name}.json").write_text(json.dumps({"model": "model", "input": inputs}), encoding="utf-8")
    return {name: folder / f"{name}.json" for name in bodies}


def _measured(server: ServingProcess, path: str, bodies: dict[str, Path], seconds: float) -> Figures:
    def load(body: Path, at_once: int) -> list[dict[str, float]]:
        url = f"{server.url}{path}"
        run_hey(url, body, at_once, ["-n", str(max(_WARM, at_once))])
        return run_hey(url, body, at_once, ["-z", f"{seconds:g}s"])

    one, many, large = load(bodies["one"], 1), load(bodies["one"], _AT_ONCE), load(bodies["many"], _LARGE_AT_ONCE)
    return {
        "one_p50_ms": percentile(one, 0.5),
        "one_p99_ms": percentile(one, 0.99),
        "many_per_second": per_second(many),
        "many_p50_ms": percentile(many, 0.5),
        "many_p99_ms": percentile(many, 0.99),
        "texts_per_second": _TEXTS * per_second(large),
        "memory_bytes": server.memory_bytes,
        "ready_seconds": server.seconds,
    }


def run_hey(url: str, body: Path, at_once: int, how_long: list[str]) -> list[dict[str, float]]:
    """Returns what hey writes of each request. Raises BertjaxError where one is not answered by 200."""
    command = ["hey", *how_long, "-c", str(at_once), "-t", "120", "-m", "POST", "-T", "application/json"]
    done = subprocess.run([*command, "-D", str(body), "-o", "csv", url], capture_output=True, text=True)
    rows = [{key: float(value) for key, value in row.items()} for row in csv.DictReader(io.StringIO(done.stdout))]
    bad = [row for row in rows if row["status-code"] != 200]
    if done.returncode or not rows or bad:
        status = f"{len(bad)} of {len(rows)} requests were not answered by 200" if rows else done.stderr.strip()
        raise BertjaxError(f"hey failed on {url}: {status}")
    return rows


def percentile(rows: list[dict[str, float]], share: float) -> float:
    """Returns the milliseconds within which this share of the requests was answered."""
    times = sorted(row["response-time"] for row in rows)
    return 1000 * times[min(int(share * len(times)), len(times) - 1)]


def per_second(rows: list[dict[str, float]]) -> float:
    """Returns the requests a second, from the first one's start to the last one's answer."""
    return len(rows) / max(row["offset"] + row["response-time"] for row in rows)


def _median(texts: list[str]) -> str:
    return sorted(texts, key=len)[len(texts) // 2]
