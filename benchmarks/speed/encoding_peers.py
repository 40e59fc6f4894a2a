"""Encoding with our weights in transformers, sentence-transformers and ONNX Runtime; none is in the default install."""

import contextlib
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import sentence_transformers
import torch
import transformers
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

from benchmarks.speed.shared_folder import SharedFolder, nested
from bertjax.config.recipes import load_config
from bertjax.data.tokenizer.files import load_tokenizer
from bertjax.hub.folder import write_folder
from bertjax.models.operations import encoding_figures

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
ROWS = 64  # texts at once, in the order of their lengths

Encode = Callable[[list[str]], np.ndarray]


def export(*, config: str, folder: str) -> dict[str, Any]:
    """Writes our weights as we export them, and as an ONNX file that PyTorch makes of transformers' model."""
    shared = SharedFolder(folder)
    params, tokenizer = nested(shared.weights()), load_tokenizer(shared.tokenizer)
    write_folder(load_config(config).model, params, tokenizer, shared.exported, card="", onnx="int8")
    _export_onnx(transformers.BertModel.from_pretrained(shared.exported, add_pooling_layer=False).eval(), shared)
    return {}


def encode(*, config: str, folder: str, name: str) -> dict[str, Any]:
    """Times the second of two times that the same texts are encoded."""
    shared = SharedFolder(folder)
    run: Encode = {
        "transformers_float32": lambda: _transformers(shared, contextlib.nullcontext),
        "transformers_bf16": lambda: _transformers(shared, lambda: torch.autocast(DEVICE, torch.bfloat16)),
        "sentence_transformers": lambda: _sentence_transformers(shared),
        "onnxruntime": lambda: _onnxruntime(shared, shared.onnx),
        "onnxruntime_ours": lambda: _onnxruntime(shared, shared.exported / "onnx" / "model.onnx"),
        "onnxruntime_ours_int8": lambda: _onnxruntime(shared, shared.exported / "onnx" / "model_quantized.onnx"),
    }[name]()
    texts = shared.texts()
    start = time.perf_counter()
    run(texts)
    warm = time.perf_counter()
    vectors = run(texts)
    seconds = time.perf_counter() - warm
    shared.write_vectors(name, vectors)
    return encoding_figures(load_config(config).model, shared.lengths(), seconds) | {"first_seconds": warm - start}


def _transformers(shared: SharedFolder, precision: Callable[[], Any]) -> Encode:
    net = transformers.BertModel.from_pretrained(shared.exported, add_pooling_layer=False).eval().to(DEVICE)
    tokenizer = transformers.AutoTokenizer.from_pretrained(shared.exported)

    def run(texts: list[str]) -> np.ndarray:
        vectors = np.zeros((len(texts), net.config.hidden_size), np.float32)
        for rows in _by_length(texts):
            some = tokenizer([texts[row] for row in rows], padding=True, truncation=True, return_tensors="pt").to(
                DEVICE
            )
            with torch.inference_mode(), precision():
                hidden = net(**some).last_hidden_state
            real = some["attention_mask"][:, :, None].float()
            vectors[rows] = ((hidden.float() * real).sum(1) / real.sum(1)).cpu().numpy()
        return vectors

    return run


def _sentence_transformers(shared: SharedFolder) -> Encode:
    transformer = Transformer(str(shared.exported))
    pooling = Pooling(transformer.get_embedding_dimension(), "mean")
    net = sentence_transformers.SentenceTransformer(modules=[transformer, pooling], device=DEVICE)
    return lambda texts: net.encode(texts, batch_size=ROWS, show_progress_bar=False)


def _onnxruntime(shared: SharedFolder, file: Path) -> Encode:
    provider = "CUDAExecutionProvider" if DEVICE == "cuda" else "CPUExecutionProvider"
    session = onnxruntime.InferenceSession(file, providers=[provider])
    tokenizer = transformers.AutoTokenizer.from_pretrained(shared.exported)

    def run(texts: list[str]) -> np.ndarray:
        vectors: list[np.ndarray] = [np.empty(0)] * len(texts)
        for rows in _by_length(texts):
            some = dict(tokenizer([texts[row] for row in rows], padding=True, truncation=True, return_tensors="np"))
            (hidden,) = session.run(None, {name: array.astype(np.int64) for name, array in some.items()})
            real = some["attention_mask"][:, :, None].astype(np.float32)
            for row, vector in zip(rows, (hidden * real).sum(1) / real.sum(1), strict=True):
                vectors[row] = vector
        return np.stack(vectors)

    return run


def _by_length(texts: list[str]) -> Iterator[list[int]]:
    order = sorted(range(len(texts)), key=lambda row: len(texts[row].split()))
    for start in range(0, len(texts), ROWS):
        yield order[start : start + ROWS]


def _export_onnx(net: Any, shared: SharedFolder) -> None:
    class Hidden(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, input_ids: Any, token_type_ids: Any, attention_mask: Any) -> Any:
            return self.net(input_ids, token_type_ids=token_type_ids, attention_mask=attention_mask).last_hidden_state

    inputs = ["input_ids", "token_type_ids", "attention_mask"]
    zeros = torch.zeros((2, 8), dtype=torch.int64)
    real = torch.ones_like(zeros)
    real[1, 4:] = 0  # without padding to see, the mask would be left out of what is exported
    with warnings.catch_warnings(action="ignore"):  # of the exporter that needs no further package
        torch.onnx.export(
            Hidden().eval(),
            (zeros, zeros, real),
            str(shared.onnx),
            input_names=inputs,
            output_names=["hidden"],
            dynamic_axes={name: {0: "rows", 1: "tokens"} for name in (*inputs, "hidden")},
            dynamo=False,
        )
