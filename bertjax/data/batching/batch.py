"""The batches that cross from the host to the devices, one NamedTuple for each kind of objective."""

from typing import Any, NamedTuple

Field = Any  # numpy's array on the host, jax's on the devices


class Batch(NamedTuple):
    """A batch of pretraining: b rows, t tokens a row, p predictions a row, k sequences a row."""

    tokens_bt: Field  # int32, ids after masking
    segments_bt: Field  # int32, 0 = A, 1 = B
    positions_bt: Field  # int32, position inside its own sequence
    sequences_bt: Field  # int32, which of the row's sequences, 1..k; 0 = padding
    mlm_positions_bp: Field  # int32
    mlm_labels_bp: Field  # int32
    mlm_weights_bp: Field  # float32, 1 or 0
    cls_positions_bk: Field  # int32
    nsp_labels_bk: Field  # int32, B is what follows A = 1
    nsp_weights_bk: Field  # float32, 1 or 0; 0 for sequences without B too
