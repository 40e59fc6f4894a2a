"""A model as an ONNX graph for any batch and length, made node by node: what `models/` computes, told once more.

A converter of JAX's programs would be less to read, but jax2onnx 0.17 fails where the length is not known, makes some
140 nodes a layer where it is, and wants an older orbax than ours. These are 31 a layer, in forms that runtimes know.

Letters: b rows, t and s tokens of a row, h heads, e features of a head, d hidden, f features inside a layer, c labels.
"""

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from bertjax.config import BertConfig
from bertjax.errors import BertjaxError
from bertjax.hub.family import Head
from bertjax.ops.activations import GATED
from bertjax.ops.distances import MOST_DISTANCE, distance_buckets, way_buckets
from bertjax.ops.rotary import speeds

if TYPE_CHECKING:
    import onnx

Weights = Literal["float32", "int8"]
OPSET = 20  # the first with Gelu; onnxruntime has it since 1.17
_BEYOND_ONE_FILE = 2_000_000_000  # bytes of weights; a protobuf message has less than 2 GiB
_FLOAT, _INT64, _BOOL = 1, 7, 9  # what `onnx.TensorProto` calls them
_UNSEEN = float(np.finfo(np.float32).min)  # not -inf: a row of padding alone must average, not turn into NaN


def check_installed() -> None:
    """Raises BertjaxError where what writes ONNX is not installed."""
    lacking = [name for name in ("onnx", "onnxruntime") if importlib.util.find_spec(name) is None]
    if lacking:
        raise BertjaxError(f"to write ONNX {' and '.join(lacking)} is needed: pip install 'bertjax[onnx]'")


def write_onnx(
    config: BertConfig,
    params: Mapping[str, Any],
    folder: Path,
    *,
    weights: Weights = "float32",
    pad: int | None = None,
    head: Head | None = None,
) -> None:
    """Writes model.onnx, and for weights of 8 bits model_quantized.onnx beside it, into a folder.

    Args:
      weights: those of products and embeddings. What weights of 8 bits are multiplied with is rounded to as many, as it
        comes (`onnxruntime.quantization.quantize_dynamic`).
      params, pad, head: as of `graph_of`.

    Raises:
      OSError: it cannot be written.
    """
    import onnx

    file = folder / "model.onnx"
    model = graph_of(config, params, pad=pad, head=head)
    if sum(len(weight.raw_data) for weight in model.graph.initializer) < _BEYOND_ONE_FILE:
        onnx.save(model, file)
    else:
        onnx.save(model, file, save_as_external_data=True, location=f"{file.name}_data")
    if weights == "int8":
        _write_int8(file)


def _write_int8(file: Path) -> None:
    import onnx
    from onnxruntime import quantization

    model = onnx.load(file)
    # There is nothing to prepare; unless that is said, a warning goes to the root logger.
    onnx.helper.set_model_props(model, {"onnx.quant.pre_process": "onnxruntime.quant"})
    out = file.with_name(f"{file.stem}_quantized.onnx")
    # Without a sign: where a CPU lacks VNNI, sums of signed weights overflow their 16 bits.
    quantization.quantize_dynamic(model, out, per_channel=True, weight_type=quantization.QuantType.QUInt8)


def graph_of(
    config: BertConfig, params: Mapping[str, Any], *, pad: int | None = None, head: Head | None = None
) -> "onnx.ModelProto":
    """Returns the graph of a model.

    Its inputs are int64 [b, t]: input_ids, attention_mask, which is 0 at padding, and with two token types
    token_type_ids. Its output is last_hidden_state, float32 [b, t, d], which means nothing at padding; or of a head
    logits, [b, c] for a text or [b, t, c] for its tokens, or start_logits and end_logits, [b, t].

    Args:
      params: of `Bert`, by path ("block_0/ffn/in/kernel"), and with a head its classifier.
      pad: positions are counted over the tokens that are not this one, as RoBERTa's are; by default over all.
      head: what a fine-tuned model tells.
    """
    from onnx import TensorProto, helper

    graph = _Graph(config, params)
    outputs = _outputs(graph, _encoded(graph, pad), head)
    for name, (value, _) in outputs.items():
        graph.nodes.append(helper.make_node("Identity", [value], [name]))
    inputs = ["input_ids", "attention_mask", *["token_type_ids"] * (config.token_types > 1)]
    made = helper.make_graph(
        graph.nodes,
        "bert",
        [helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "sequence"]) for name in inputs],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, (_, shape) in outputs.items()],
        list(graph.weights.values()),
    )
    opsets = [helper.make_opsetid("", OPSET)]
    version = helper.find_min_ir_version_for(opsets)  # a newer one would keep older runtimes out
    return helper.make_model(made, opset_imports=opsets, ir_version=version, producer_name="bertjax")


class _Graph:
    """Nodes and weights, as they are added. What goes from node to node is known by its name."""

    def __init__(self, config: BertConfig, params: Mapping[str, Any]) -> None:
        self.config, self.params = config, params
        self.nodes: list[onnx.NodeProto] = []
        self.weights: dict[str, onnx.TensorProto] = {}

    def node(self, op: str, *inputs: str | float | list[int], outputs: int = 1, **attributes: Any) -> Any:
        """Adds a node, and returns the name of its output, or of several.

        Args:
          inputs: names; or constants: float32 or int64, and a list is an array.
        """
        from onnx import helper

        name = f"{op}_{len(self.nodes)}"
        names = [name] if outputs == 1 else [f"{name}_{number}" for number in range(outputs)]
        given = [value if isinstance(value, str) else self.weight(str(value), value) for value in inputs]
        self.nodes.append(helper.make_node(op, given, names, name, **attributes))
        return name if outputs == 1 else names

    def weight(self, name: str, value: Any) -> str:
        """Adds an array, unless there is one of the name, and returns the name."""
        from onnx import numpy_helper

        if name not in self.weights:
            array = np.asarray(value)
            array = array.astype(np.int64 if array.dtype.kind == "i" else np.float32, order="C")
            self.weights[name] = numpy_helper.from_array(array, name)
        return name

    def param(self, path: str) -> str:
        """Adds a parameter of the model, and returns its name."""
        return self.weight(path, self.params[path])

    def linear(self, x: str, path: str) -> str:
        y = self.node("MatMul", x, self.param(f"{path}/kernel"))
        return self.node("Add", y, self.param(f"{path}/bias")) if f"{path}/bias" in self.params else y

    def norm(self, x: str, path: str) -> str:
        eps = self.config.layer_norm_eps
        if self.config.norm_kind == "rms":
            square = self.node("ReduceMean", self.node("Mul", x, x), [-1])
            x = self.node("Div", x, self.node("Sqrt", self.node("Add", square, eps)))
            return self.node("Mul", x, self.param(f"{path}/scale"))
        bias = [self.param(f"{path}/bias")] if f"{path}/bias" in self.params else []
        return self.node("LayerNormalization", x, self.param(f"{path}/scale"), *bias, axis=-1, epsilon=eps)

    def activation(self, x: str, name: str) -> str:
        if name in ("silu", "swiglu"):
            return self.node("Mul", x, self.node("Sigmoid", x))
        if name in ("relu", "tanh"):
            return self.node(name.title(), x)
        return self.node("Gelu", x, approximate="tanh" if name == "gelu_tanh" else "none")


def _encoded(graph: _Graph, pad: int | None) -> str:
    """Adds embeddings and encoder, and returns the name of the representations, [b, t, d]."""
    c, node = graph.config, graph.node
    x_btd = _embedded(graph, pad)
    seen_b11s = node("Cast", node("Unsqueeze", "attention_mask", [1, 2]), to=_BOOL)
    # Once for all layers: what hides tokens in scores, and the angles of positions.
    hidden = {window: _hidden(graph, seen_b11s, window) for window in {c.window_of(n) for n in range(c.num_layers)}}
    angles: dict[float, tuple[str, str] | None] = dict.fromkeys(c.rotary_theta_of(n) for n in range(c.num_layers))
    ways = _ways(graph) if c.positions == "disentangled" else None
    if c.positions == "rotary":
        angles = {theta: _angles(graph, theta) for theta in angles}
    for layer in range(c.num_layers):
        block = f"block_{layer % c.num_blocks}"
        of_layer = hidden[c.window_of(layer)], angles[c.rotary_theta_of(layer)], ways
        for sublayer in ("attention", "ffn"):
            norm = f"{block}/{sublayer}_norm"
            bare = c.norm == "pre" and sublayer == "attention" and layer == 0 and not c.first_attention_norm
            y_btd = x_btd if c.norm == "post" or bare else graph.norm(x_btd, norm)
            path = f"{block}/{sublayer}"
            y_btd = _attention(graph, y_btd, path, *of_layer) if sublayer == "attention" else _ffn(graph, y_btd, path)
            x_btd = node("Add", x_btd, y_btd)
            x_btd = graph.norm(x_btd, norm) if c.norm == "post" else x_btd
    return graph.norm(x_btd, "final_norm") if c.norm == "pre" else x_btd


def _embedded(graph: _Graph, pad: int | None) -> str:
    c, node = graph.config, graph.node
    x_btd = node("Gather", graph.param("token_embedding"), "input_ids")
    if c.token_types > 1:
        x_btd = node("Add", x_btd, node("Gather", graph.param("segment_embedding"), "token_type_ids"))
    elif c.token_types:
        x_btd = node("Add", x_btd, graph.param("segment_embedding"))
    if c.positions == "learned":
        table = graph.param("position_embedding")
        if pad is None:
            places = node("Slice", table, [0], node("Shape", "input_ids", start=1, end=2), [0])
        else:
            words_bt = node("Cast", node("Not", node("Equal", "input_ids", pad)), to=_INT64)
            before_bt = node("CumSum", words_bt, 1, exclusive=1)
            places = node("Gather", table, before_bt)
        x_btd = node("Add", x_btd, places)
    x_btd = graph.norm(x_btd, "embedding_norm") if c.embedding_norm else x_btd
    return x_btd if c.embedding_size is None else graph.linear(x_btd, "embedding_projection")


def _hidden(graph: _Graph, seen_b11s: str, window: int | None) -> str:
    """What is added to scores [b, h, t, s]: 0 where a token sees another, and what hides it where it does not."""
    node = graph.node
    if window is None and not graph.config.relative_attention_bias:
        return node("Where", seen_b11s, 0.0, _UNSEEN)
    places_t = _places(graph)
    way_ts = node("Sub", node("Unsqueeze", places_t, [0]), node("Unsqueeze", places_t, [1]))
    if window is None:
        return node("Where", seen_b11s, _distance_bias(graph, way_ts), _UNSEEN)
    near_ts = node("LessOrEqual", node("Abs", way_ts), float(window))
    return node("Where", node("And", seen_b11s, near_ts), 0.0, _UNSEEN)


def _distance_bias(graph: _Graph, way_ts: str) -> str:
    """The bias of the way from each token to each other, [1, h, t, s]."""
    node, most = graph.node, MOST_DISTANCE
    of_ways = np.asarray(graph.params["relative_attention_bias"])[distance_buckets(2 * most + 1)[most]]
    way_ts = node("Add", node("Clip", way_ts, float(-most), float(most)), float(most))
    bias_tsh = node("Gather", graph.weight("bias of ways", of_ways), node("Cast", way_ts, to=_INT64))
    return node("Unsqueeze", node("Transpose", bias_tsh, perm=[2, 0, 1]), [0])


def _angles(graph: _Graph, theta: float) -> tuple[str, str]:
    """The cosines and sines by which each place turns pairs of features, [t, e/2]."""
    node, c = graph.node, graph.config
    speed_1e = np.asarray(speeds(c.hidden_size // c.num_heads // 2, theta))[None]
    speed = graph.weight(f"speeds of {theta}", speed_1e)
    angle_te = node("Mul", node("Unsqueeze", _places(graph), [1]), speed)
    return node("Cos", angle_te), node("Sin", angle_te)


def _ways(graph: _Graph) -> str:
    """The bucket of the way from each token to each other, int64 [t, s]."""
    node, most = graph.node, graph.config.max_position
    places_t = _places(graph)
    way_ts = node("Sub", node("Unsqueeze", places_t, [1]), node("Unsqueeze", places_t, [0]))
    buckets_ts = np.asarray(way_buckets(most, most))
    buckets = graph.weight("buckets of ways", np.concatenate((buckets_ts[0, ::-1], buckets_ts[1:, 0])))
    way_ts = node("Add", node("Clip", way_ts, 1.0 - most, most - 1.0), most - 1.0)
    return node("Gather", buckets, node("Cast", way_ts, to=_INT64))


def _bias_of_ways(graph: _Graph, q_bhte: str, k_bhse: str, path: str, ways_ts: str) -> str:
    """What `ops.distances.disentangled_bias` returns; keys and queries of ways are the same for all texts."""
    node, (h, d) = graph.node, (graph.config.num_heads, graph.config.hidden_size)
    ways_rd = _normed_ways(graph)

    def compared(x_bhte: str, name: str, ways_ts: str) -> str:
        of_ways_rd = ways_rd @ graph.params[f"{path}/{name}/kernel"] + graph.params[f"{path}/{name}/bias"]
        of_ways_her = np.asarray(of_ways_rd).reshape(-1, h, d // h).transpose(1, 2, 0)
        scores_bhtr = node("MatMul", x_bhte, graph.weight(f"{path}/{name} of ways", of_ways_her))
        shape = node("Concat", node("Shape", x_bhte, end=3), node("Shape", x_bhte, start=2, end=3), axis=0)
        return node("GatherElements", scores_bhtr, node("Expand", ways_ts, shape), axis=-1)

    to_bhts = compared(q_bhte, "key", ways_ts)
    of_bhst = compared(k_bhse, "query", node("Transpose", ways_ts, perm=[1, 0]))
    return node("Add", to_bhts, node("Transpose", of_bhst, perm=[0, 1, 3, 2]))


def _normed_ways(graph: _Graph) -> np.ndarray:
    ways_rd, params = np.asarray(graph.params["relative_embedding"]), graph.params
    centred_rd = ways_rd - ways_rd.mean(-1, keepdims=True)
    scale_r1 = np.sqrt((centred_rd**2).mean(-1, keepdims=True) + graph.config.layer_norm_eps)
    normed_rd: np.ndarray = centred_rd / scale_r1 * params["relative_norm/scale"] + params["relative_norm/bias"]
    return normed_rd


def _places(graph: _Graph) -> str:
    """The tokens' places in their row, float32 [t]."""
    t = graph.node("Squeeze", graph.node("Shape", "input_ids", start=1, end=2))
    return graph.node("Cast", graph.node("Range", 0, t, 1), to=_FLOAT)


def _attention(
    graph: _Graph, x_btd: str, path: str, hidden: str, angles: tuple[str, str] | None, ways: str | None
) -> str:
    node, (h, d) = graph.node, (graph.config.num_heads, graph.config.hidden_size)

    def heads(name: str) -> str:
        y_bthe = node("Reshape", graph.linear(x_btd, f"{path}/{name}"), [0, 0, h, d // h])
        return node("Transpose", y_bthe, perm=[0, 2, 1, 3])

    def turned(x_bhte: str) -> str:
        if angles is None:
            return x_bhte
        (first, second), (cos, sin) = node("Split", x_bhte, outputs=2, axis=-1, num_outputs=2), angles
        return node(
            "Concat",
            node("Sub", node("Mul", first, cos), node("Mul", second, sin)),
            node("Add", node("Mul", second, cos), node("Mul", first, sin)),
            axis=-1,
        )

    q_bhte, k_bhse, v_bhse = turned(heads("query")), turned(heads("key")), heads("value")
    scores_bhts = node("MatMul", q_bhte, node("Transpose", k_bhse, perm=[0, 1, 3, 2]))
    scale = (d // h) ** -0.5
    if ways is not None:
        scores_bhts = node("Add", scores_bhts, _bias_of_ways(graph, q_bhte, k_bhse, path, ways))
        scale /= 3**0.5
    scores_bhts = node("Add", node("Mul", scores_bhts, scale), hidden)
    mixed_bhte = node("MatMul", node("Softmax", scores_bhts, axis=-1), v_bhse)
    mixed_btd = node("Reshape", node("Transpose", mixed_bhte, perm=[0, 2, 1, 3]), [0, 0, d])
    return graph.linear(mixed_btd, f"{path}/out")


def _ffn(graph: _Graph, x_btd: str, path: str) -> str:
    act = graph.config.hidden_act
    inner_btf = graph.activation(graph.linear(x_btd, f"{path}/in"), act)
    if act in GATED:
        inner_btf = graph.node("Mul", inner_btf, graph.linear(x_btd, f"{path}/gate"))
    return graph.linear(inner_btf, f"{path}/out")


def _outputs(graph: _Graph, x_btd: str, head: Head | None) -> dict[str, tuple[str, list[str | int]]]:
    """Adds the head, if there is one, and returns what is told, by its name there, with its shape."""
    c, node = graph.config, graph.node
    if head is None:
        return {"last_hidden_state": (x_btd, ["batch", "sequence", c.hidden_size])}
    num_labels = graph.params["classifier/kernel"].shape[-1]
    if head == "labels of tokens":
        return {"logits": (graph.linear(x_btd, "classifier"), ["batch", "sequence", num_labels])}
    if head == "answers":
        split = node("Split", graph.linear(x_btd, "classifier"), outputs=2, axis=-1, num_outputs=2)
        names = ("start_logits", "end_logits")
        return {
            name: (node("Squeeze", part, [-1]), ["batch", "sequence"]) for name, part in zip(names, split, strict=True)
        }
    if c.classifier_pooling == "mean":
        inside_bt1 = node("Cast", node("Unsqueeze", "attention_mask", [2]), to=_FLOAT)
        total_bd = node("ReduceSum", node("Mul", x_btd, inside_bt1), [1], keepdims=0)
        pooled_bd = node("Div", total_bd, node("ReduceSum", inside_bt1, [1], keepdims=0))
    else:
        pooled_bd = node("Gather", x_btd, 0, axis=1)
    act = c.hidden_act if c.pooler_act == "hidden_act" else c.pooler_act
    pooled_bd = graph.activation(graph.linear(pooled_bd, "pooler"), act)
    pooled_bd = graph.norm(pooled_bd, "pooler/norm") if c.pooler_norm else pooled_bd
    return {"logits": (graph.linear(pooled_bd, "classifier"), ["batch", num_labels])}
