"""What is asked of every input: a right answer, or one line that says what is wrong."""

import json
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from bertjax.errors import BertjaxError

REFUSED = object()


def answer(call: Callable[..., Any], *args: Any, **settings: Any) -> Any:
    """What the call returns, or REFUSED for a clear error. Any other exception is a bug, and passes."""
    try:
        return call(*args, **settings)
    except BertjaxError as error:
        message = str(error)
        assert message.strip() and len(message.splitlines()) == 1 and "\x1b" not in message, (
            f"not one line: {message!r}"
        )
        assert len(message) < 2100, f"a page, not a line: {len(message)} characters"
        return REFUSED


def json_values() -> st.SearchStrategy[Any]:
    """Anything that JSON can hold, and YAML too."""
    leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
    return st.recursive(leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner))


@st.composite
def damaged_bytes(draw: st.DrawFn, whole: bytes) -> bytes:
    """Some bytes changed, cut out, put in or put twice, as accidents and bad memory do."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.sampled_from([0, 1, 1, 1, 8, 64, len(whole)])))
        match draw(st.sampled_from(["flip", "cut", "put", "twice", "zero"])):
            case "flip":
                bit = 1 << draw(st.integers(0, 7))
                data[start:end] = bytes(byte ^ bit for byte in data[start:end])
            case "cut":
                del data[start:end]
            case "put":
                data[start:start] = draw(st.binary(max_size=16))
            case "twice":
                data[start:start] = data[start:end]
            case "zero":
                data[start:end] = bytes(end - start)
    return bytes(data)


@st.composite
def damaged_json(draw: st.DrawFn, whole: str) -> str:
    """A value somewhere in it replaced, removed or put under another name: still JSON, but not what was written."""
    tree = json.loads(whole)
    for _ in range(draw(st.integers(1, 3))):
        node = tree
        while isinstance(node, dict | list) and node:
            keys = list(node) if isinstance(node, dict) else range(len(node))
            key = draw(st.sampled_from(keys))
            if isinstance(node[key], dict | list) and node[key] and draw(st.integers(0, 3)):
                node = node[key]
                continue
            match draw(st.sampled_from(["replace", "remove", "rename"])):
                case "replace":
                    node[key] = draw(json_values())
                case "remove":
                    del node[key]
                case "rename" if isinstance(node, dict):
                    node[draw(st.text(max_size=8))] = node.pop(key)
            break
    return json.dumps(tree, ensure_ascii=draw(st.booleans()))
