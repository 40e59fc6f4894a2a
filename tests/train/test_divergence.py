"""What a run does about a loss that is no number, or far above those before."""

import jax.numpy as jnp
import pytest

from bertjax.config import OptimConfig, TrainConfig
from bertjax.errors import BertjaxError
from bertjax.train.divergence import LossSpike, RisingLoss, Skip, batch_of, check_step, loss_of, skip_after

PARAMS = {"a": {"kernel": jnp.array([[1.0, -700.0]])}, "b": jnp.array([3.0]), "c": jnp.array([0.5]), "d": jnp.zeros(2)}
LOSSES = ("mlm_loss", "nsp_loss")
CALM = {"skipped_in_a_row": 0.0, "loss_rise": 1.0}


def test_without_skips_steps_take_the_batches_in_order() -> None:
    assert [batch_of(step, []) for step in (1, 2, 3)] == [0, 1, 2]


def test_skips_leave_out_their_batches_and_no_others() -> None:
    """Steps 4 and 5 spiked once, then the new 4; then all went well until 7, the second after a checkpoint at 5."""
    skips = [Skip(3, 2), Skip(3, 1), Skip(5, 2)]
    assert [batch_of(step, skips) for step in range(1, 9)] == [0, 1, 2, 6, 7, 10, 11, 12]


def test_bad_steps_in_a_row_end_the_run() -> None:
    train = TrainConfig(max_bad_steps=3)
    check_step(6, CALM | {"skipped_in_a_row": 2.0, "loss_rise": float("nan")}, train, PARAMS)
    with pytest.raises(BertjaxError) as caught:
        check_step(7, CALM | {"skipped_in_a_row": 3.0}, train, PARAMS)
    message = str(caught.value)
    assert message.startswith("step 7 is number 3 in a row without a finite loss and gradients (train.max_bad_steps=3)")
    assert "a/kernel (up to 700), b (up to 3), c (up to 0.5);" in message and "\n" not in message


def test_a_spike_is_one_only_where_it_is_looked_for() -> None:
    check_step(5, CALM | {"loss_rise": 100.0}, TrainConfig(), PARAMS)
    train = TrainConfig(spike_factor=2.0)
    for rise in (2.0, float("nan")):
        check_step(5, CALM | {"loss_rise": rise}, train, PARAMS)
    with pytest.raises(LossSpike, match="the loss of step 5 is 2.5 times its recent mean") as caught:
        check_step(5, CALM | {"loss_rise": 2.5}, train, PARAMS)
    assert skip_after(2, caught.value, []) == Skip(2, 3)


def test_going_back_to_one_checkpoint_ends_some_time() -> None:
    skips = [Skip(0, 9), Skip(2, 3), Skip(2, 1), Skip(2, 1)]
    with pytest.raises(BertjaxError, match="step 5 is 2.5 times .*, although the run has gone back to step 2 3 times"):
        skip_after(2, LossSpike(5, 2.5), skips)
    assert skip_after(4, LossSpike(5, 2.5), skips) == Skip(4, 1)


def judged(losses: list[float], optim: OptimConfig, first: float | None = None) -> list[tuple[int, str]]:
    """What is told of the steps of these losses, whose recent mean is the loss before."""
    lines = [] if first is None else [{"mlm_loss": first, "loss_rise": 1.0}]
    rising, told, before = RisingLoss(optim, LOSSES, lines), [], losses[0]
    for step, loss in enumerate(losses, 1):
        means = {"mlm_loss": loss - 1, "nsp_loss": 1.0, "loss_rise": loss / before}
        if warning := rising.seen(step, means):
            told.append((step, warning))
        before = loss
    return told


def test_a_loss_that_rises_is_told_once_with_the_learning_rate() -> None:
    optim = OptimConfig(learning_rate=0.25)
    ((step, warning),) = judged([10.0] * 50 + [9.0] * 70 + [11.0] * 80, optim)
    assert step == 122 and "\n" not in warning  # the mean is of the steps before
    assert "its recent mean at step 122 is 11.000, above the 10.000 it began with" in warning
    assert "lower optim.learning_rate=0.25" in warning
    assert judged([10.0] * 50 + [9.0] * 70 + [9.9] * 80, optim) == []


def test_a_loss_may_rise_while_the_run_warms_up() -> None:
    high_at_first = [10.0] + [12.0] * 98 + [9.0] * 100
    assert judged(high_at_first, OptimConfig()) == []
    assert judged([10.0] + [12.0] * 148 + [9.0] * 9, OptimConfig(warmup_steps=150)) == []
    ((step, _),) = judged([12.0] * 200, OptimConfig(warmup_steps=150), first=10.0)  # as a resumed run has it
    assert step == 151


def test_losses_that_are_no_numbers_are_for_others_to_judge() -> None:
    rising = RisingLoss(OptimConfig(), LOSSES, [{"mlm_loss": 10.0, "loss_rise": 1.0}])
    assert rising.seen(200, {"nsp_loss": float("nan"), "mlm_loss": 1.0, "loss_rise": float("nan")}) is None
    assert loss_of({"mlm_loss": None, "nsp_loss": 1.0}, LOSSES) is None and loss_of({}, LOSSES) is None
    assert loss_of({"mlm_loss": 2.5}, LOSSES) == 2.5
    assert loss_of({"mlm_loss": 2.5, "nsp_loss": 1.0, "step": 3}, LOSSES) == 3.5
