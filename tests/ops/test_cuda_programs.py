"""What is asked of an NVIDIA GPU, without one: the program of a step, made for CUDA and read."""

import math
import re
from collections import Counter

import jax
import jax.numpy as jnp
import pytest
from jax._src.cudnn import fused_attention_stablehlo  # whose version of cuDNN is of no public name

from bertjax.config import BertConfig
from bertjax.models.bert import Bert, params_template
from bertjax.ops.attention import Backend

B, T, LAYERS, HEADS = 4, 512, 2, 2
CONFIG = BertConfig(
    100, hidden_size=128, num_layers=LAYERS, num_heads=HEADS, intermediate_size=64, max_position=T, dropout=0.0
)


def program(backend: Backend, monkeypatch: pytest.MonkeyPatch, **how: bool) -> str:
    """The gradients of packed rows, in bfloat16, as StableHLO."""
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(fused_attention_stablehlo, "check_cudnn_version", lambda: 91000)
    model = Bert(CONFIG, dtype=jnp.bfloat16, backend=backend, **how)

    def loss(params: dict, *rows: jax.Array) -> jax.Array:
        rngs = {"dropout": jax.random.key(0)}
        return (model.apply({"params": params}, *rows, method="encode", train=True, rngs=rngs) ** 2).sum()

    rows = [jax.ShapeDtypeStruct((B, T), jnp.int32)] * 4
    traced = jax.jit(jax.grad(loss)).trace(params_template(model), *rows)
    return traced.lower(lowering_platforms=("cuda",)).as_text()


def test_cudnn_is_called_and_nothing_of_heads_by_tokens_by_tokens_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forward and back in every layer; what masks tokens is made for all heads together."""
    scores = f"tensor<{B}x{HEADS}x{T}x{T}x"
    assert scores in program("xla", monkeypatch)  # what is looked for can be found
    text = program("cudnn", monkeypatch)
    calls = Counter(re.findall(r"custom_call @__cudnn\$fmha(\w+)", text))
    assert calls == {"ScaleBiasSoftmax": 1, "ScaleBiasSoftmaxBackward": 1}
    layers = Counter(re.findall(r"call @(apply_block\w*)", text))  # of one way, whose functions have these calls
    assert sorted(layers.values()) == [LAYERS] * 2
    assert scores not in text and f"tensor<{B}x1x{T}x{T}xbf16>" in text
    factors = re.findall(r"dot_general.*: \(tensor<[\dx]*x(\w+)>, tensor<[\dx]*x(\w+)>\)", text)
    assert factors and set(factors) == {("bf16", "bf16")}


@pytest.mark.parametrize("backend", ["xla", "cudnn"])
def test_a_layer_keeps_its_products_alone(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """For the way back: its input, and of its six products and of attention what they give, all in bfloat16."""
    forward = next(line for line in program(backend, monkeypatch, scan_layers=True).splitlines() if "while(" in line)
    of_layers = re.findall(rf"tensor<{LAYERS}x((?:\d+x)+)(\w+)>", forward)
    kept = Counter((math.prod(map(int, shape[:-1].split("x"))), dtype) for shape, dtype in of_layers)
    tokens, hidden, inner = B * T, CONFIG.hidden_size, CONFIG.intermediate_size
    large = {what: times for what, times in kept.items() if what[0] >= tokens * min(hidden, inner)}
    assert large == {(tokens * hidden, "bf16"): 7, (tokens * inner, "bf16"): 1}
