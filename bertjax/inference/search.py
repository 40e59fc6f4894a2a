"""Queries to an index: the model that made it, the vectors of queries, and what is shown of the texts found."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from bertjax.config import MeshConfig
from bertjax.errors import BertjaxError
from bertjax.inference.encoder import Encoder
from bertjax.inference.rows import TEXT
from bertjax.inference.vector_index import VectorIndex

_QUERY = "query"  # the name of a prompt that is for queries, as sentence-transformers has it


def load_encoder(index: VectorIndex, model: str | None, mesh: MeshConfig | None) -> Encoder:
    """Returns the model that made an index.

    Args:
      model: where it is now; by default where it was.
      mesh: as for `Encoder.load`, and so are errors.

    Raises:
      BertjaxError: there is another model by now, or none.
    """
    name = model or index.about.model
    if not name or (os.path.isabs(name) and not os.path.exists(name)):
        raise BertjaxError(f"the model of {index.folder}, {name or 'unnamed'}, is not there; give --model where it is")
    encoder = Encoder.load(name, precision=index.about.precision, mesh=mesh)  # type: ignore[arg-type]
    if encoder.fingerprint() != index.about.fingerprint:
        raise BertjaxError(
            f"{index.folder} was made by another model than {name} is now; give --model, or make the index again"
        )
    return encoder


def query_vectors(index: VectorIndex, encoder: Encoder, queries: Sequence[str], prompt: str | None) -> np.ndarray:
    """Returns the vectors of queries, made as those of the index.

    Args:
      prompt: put before each; by default the model's own for queries, else what the texts had.
    """
    about = index.about
    if prompt is None:
        prompt = encoder.sentence.prompts.get(_QUERY, about.prompt)
    how: dict[str, Any] = {"pooling": about.pooling, "normalize": about.normalize, "truncate": about.truncate}
    return encoder.encode(list(queries), **how, prompt=prompt)


def shown_columns(index: VectorIndex, asked: Sequence[str] | None) -> list[str]:
    """Returns the columns to show: those of the texts, if they were kept, else all.

    Raises:
      BertjaxError: a column is asked for that the index lacks.
    """
    if not index.about.num_vectors:
        return []
    there = index.record(0)
    for column in asked or ():
        if column not in there:
            raise BertjaxError(f"{index.folder} has no column {column!r}, but {', '.join(there)}; give one of those")
    texts = [column for column in index.about.columns or (TEXT, "pair") if column in there]
    return list(asked or texts or there)
