"""The parts of a GPU check. Each is called in a process of its own by `benchmarks.speed.worker`."""

import os
import tempfile
from pathlib import Path
from typing import Any

import jax

from benchmarks.environment import with_checkout
from benchmarks.gpu.kernels import kernels_of, longest, shares
from benchmarks.gpu.peaks import bf16_flops
from benchmarks.speed import ours
from benchmarks.speed.growing import FullBatches
from benchmarks.speed.shared_folder import SharedFolder
from benchmarks.speed.text import prepare_text
from benchmarks.stress import torture
from bertjax.config.recipes import load_config
from bertjax.models.operations import training_figures

_TRACED = 3  # steps


def steps(
    *, recipe: str, overrides: list[str], attention: str, lengths: list[int] | None, warm: int, steps: int
) -> dict[str, Any]:
    """Times training steps on rows of random tokens without padding, and then sees which kernels a few more run.

    Args:
      recipe: its name or path.
      attention: the backend, as model.attention names it.
      lengths: tokens of the sequences that are packed into every row; by default one of data.max_length.
      warm: steps before those that are timed.
    """
    config = load_config(recipe, [*overrides, f"model.attention={attention}"])
    batches = FullBatches(config, lengths)
    timed = ours.timed_steps(config, batches, warm + steps)
    figures = training_figures(config.model, [batches.batch_at(0)] * steps, timed.seconds[warm:])
    figures |= {"first_step_seconds": timed.seconds[0]}
    if kernels := kernels_of(lambda: timed.go_on(_TRACED)):
        of_kinds = shares(kernels)
        note = ", ".join(f"{share:.0%} {kind}" for kind, share in of_kinds.items())
        figures |= {"shares": of_kinds, "kernels": longest(kernels, 60), "note": note}
    return _with_device(figures)


def textbook(*, recipe: str, overrides: list[str], warm: int, steps: int) -> dict[str, Any]:
    """Times steps of a recipe on its own text, or one made up to its measure, data loading included."""
    with tempfile.TemporaryDirectory(prefix="bertjax-gpu-") as folder:
        prepare_text(load_config(recipe, overrides), Path(folder))
        figures = ours.train(config=str(Path(folder, "config.yaml")), overrides=[], warm=warm, steps=steps)
    return _with_device(figures)


def encode(*, recipe: str, overrides: list[str], texts: int) -> dict[str, Any]:
    """Times texts to vectors in bfloat16 and in float32, with fresh weights, and compares the vectors."""
    with tempfile.TemporaryDirectory(prefix="bertjax-gpu-") as name:
        shared = SharedFolder(name)
        prepared, _ = prepare_text(load_config(recipe, overrides), shared.path)
        shared.write_texts(prepared, texts)
        common = {"config": str(shared.path / "config.yaml"), "folder": name}
        ours.make_weights(**common)
        bf16 = ours.encode(**common, overrides=["train.precision=bfloat16"], name="bfloat16")
        figures = _with_device(bf16)
        with jax.default_matmul_precision("highest"):  # without TF32, which is the default of float32 on GPUs
            float32 = ours.encode(**common, overrides=[], name="float32")
        cosine = shared.least_cosine("bfloat16", "float32")
    note = f"float32: {float32['tokens_per_second']:,.0f} tokens/s; least cosine of a vector to it {cosine:.6f}"
    return figures | {"float32_tokens_per_second": float32["tokens_per_second"], "least_cosine": cosine, "note": note}


def precision(*, recipe: str, overrides: list[str], steps: int) -> dict[str, Any]:
    """Compares the MLM losses of the same first steps in bfloat16 and in float32."""
    losses: dict[str, list[float]] = {}
    for name in ("bfloat16", "float32"):
        config = load_config(recipe, [*overrides, f"train.precision={name}"])
        with jax.default_matmul_precision("highest"):
            metrics = ours.timed_steps(config, FullBatches(config), steps).metrics
        losses[name] = [float(of_step["mlm_loss"].total / of_step["mlm_loss"].weight) for of_step in metrics]
    pairs = zip(losses["bfloat16"], losses["float32"], strict=True)
    most = max(abs(bf16 - float32) / float32 for bf16, float32 in pairs)
    (bf16, *_), (float32, *_) = losses["bfloat16"], losses["float32"]
    note = f"loss {bf16:.5f}, in float32 {float32:.5f}; over {steps} steps they differ by {most:.1e} at most"
    return _with_device({"losses": losses, "greatest_relative_difference": most, "note": note})


def resume(*, recipe: str, overrides: list[str]) -> dict[str, Any]:
    """Kills a run, resumes it, and compares it with one left alone, bit for bit."""
    config = load_config(recipe, overrides)
    with tempfile.TemporaryDirectory(prefix="bertjax-gpu-") as folder:
        report = torture.torture(config, Path(folder), with_checkout(os.environ), print, kills=1, seed=0)
    differences = report["differences"]
    where = next(phase for phase, count in report["hits"].items() if count)
    note = f"killed {where}; resumed: {'; '.join(differences) or 'equal, bit for bit'}"
    return _with_device({"differences": differences, "note": note})


def _with_device(figures: dict[str, Any]) -> dict[str, Any]:
    """Adds the device, its peak, and the most of its memory that was in use, where it tells."""
    device = jax.devices()[0]
    found = figures | {"device": device.device_kind, "platform": device.platform, "jax": jax.__version__}
    if (peak := bf16_flops(device.device_kind)) is not None:
        found["peak_flops"] = peak * jax.device_count()
        if "useful_flops" in figures:
            found["share_of_peak"] = figures["useful_flops"] / found["peak_flops"]
    if (stats := device.memory_stats()) is not None:
        found["device_memory_bytes"] = stats["peak_bytes_in_use"]
    return found
