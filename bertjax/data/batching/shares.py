"""Batches that grow: a step's share of a whole batch's rows."""

from typing import NamedTuple

_PARTS = (8, 4, 2)  # of a whole batch, one after the other
MOST_PARTS = max(_PARTS)


class Share(NamedTuple):
    """Some rows of a whole batch, which one step learns from."""

    batch: int  # counted from 0
    rows: range  # may reach beyond the batch's last, where there are none


def share_at(step: int, num_rows: int, warmup_steps: int) -> Share:
    """Returns an eighth of a batch in the first third of the warmup, then a quarter, then a half, and whole ones after.

    No row is in two steps. The rows left when a share grows are in none.

    Args:
      step: counted from 0.
      num_rows: of a whole batch.
      warmup_steps: first steps, which have a share.
    """
    whole = 0
    for number, parts in enumerate(_PARTS):
        begin, end = (warmup_steps * (number + more) // len(_PARTS) for more in (0, 1))
        size = -(-num_rows // parts)
        in_a_batch = -(-num_rows // size)  # fewer than the parts where there are few rows
        if step < end:
            batches, part = divmod(step - begin, in_a_batch)
            return Share(whole + batches, range(part * size, (part + 1) * size))
        whole += -(-(end - begin) // in_a_batch)
    return Share(whole + step - warmup_steps, range(num_rows))
