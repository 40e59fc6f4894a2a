"""A short run is flat; and a leak, in a curve or in a run, is found."""

import ctypes
import dataclasses
import gc
import multiprocessing
import os
import sys
import threading
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import jax
import numpy as np
import pytest

from benchmarks.stress.soak import BYTES_A_CHECKPOINT, BYTES_A_STEP, Sample, draw, fitted, render
from bertjax.config import CheckpointConfig, Config, EvalConfig
from bertjax.runs.checkpoint_writer import CheckpointWriter
from bertjax.train.pretrain import pretrain
from bertjax.train.progress import Progress

EVERY = 20


def curve(bytes_a_step: float = 0, files: float = 0, threads: float = 0) -> list[Sample]:
    """Of 300 steps, with the noise of an allocator."""
    rng = np.random.default_rng(0)
    return [
        Sample(
            step, int(2e8 + bytes_a_step * step + rng.normal(0, 5e4)), int(20 + files * step), int(9 + threads * step)
        )
        for step in range(1, 301)
    ]


@pytest.mark.parametrize(
    "samples, flat",
    [
        (curve(), True),
        (curve(bytes_a_step=-2000), True),
        (curve(bytes_a_step=2048), False),
        (curve(files=0.01), False),
        (curve(threads=0.01), False),
    ],
)
def test_growth_is_told(samples: list[Sample], flat: bool) -> None:
    its = fitted(samples, most_bytes=BYTES_A_STEP)
    assert its["flat"] == flat and its["done"] == 300
    report = {"training": its, "encoding": its}
    assert ("NOT FLAT" not in render(report)) == flat
    assert len(draw(report).axes) == 6


class Heap(ctypes.Structure):
    """What glibc's mallinfo2 tells."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()
    ]


def bytes_in_use() -> int:
    """Resident memory wanders by more than a short run can leak; this does not."""
    glibc = ctypes.CDLL(None)
    if not hasattr(glibc, "mallinfo2"):
        pytest.skip("the C library does not tell how much is in use")
    glibc.mallinfo2.restype = Heap
    gc.collect()
    heap = glibc.mallinfo2()
    return heap.uordblks + heap.hblkhd + 64 * sys.getallocatedblocks()  # Python's small objects lie elsewhere


def measured_run(config: Config, leak: int) -> list[Sample]:
    """Trains, and keeps so many bytes a step."""
    samples, held = [], []
    held_out, save = Progress.held_out, CheckpointWriter.save

    def measured(self: Progress, means: dict[str, float]) -> None:
        held_out(self, means)
        if not samples:
            gc.collect()
            gc.freeze()  # what is imported and traced is not gone through each time
        held.append(np.ones(leak * EVERY, np.uint8))
        samples.append(Sample(self.step, bytes_in_use(), len(os.listdir("/proc/self/fd")), threading.active_count()))

    def saved(self: CheckpointWriter, step: int, trees: dict[str, Any], **how: Any) -> None:
        save(self, step, trees, **how)
        self.latest_step()  # when it is written

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Progress, "held_out", measured)
        patch.setattr(CheckpointWriter, "save", saved)
        pretrain(config)
    return samples


def test_short_runs(tiny: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a process of their own: what other tests leave behind goes when it goes."""
    monkeypatch.setenv("JAX_NUM_CPU_DEVICES", "1")  # simulated ones keep some 300 bytes of each step, in XLA
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", jax.config.jax_compilation_cache_dir)
    monkeypatch.setenv("MALLOC_ARENA_MAX", "1")  # what threads take is counted then, too
    train, evaluation = dataclasses.replace(tiny.train, steps=400), EvalConfig(every=EVERY)
    plain = dataclasses.replace(tiny, train=train, eval=evaluation)
    saving = dataclasses.replace(plain, checkpoint=CheckpointConfig(every=EVERY), run_dir=f"{tiny.run_dir}-saving")
    leaking = dataclasses.replace(plain, run_dir=f"{tiny.run_dir}-leaking")
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as other_process:
        runs = [(plain, 0), (leaking, 4 * BYTES_A_STEP), (saving, 0)]  # the first one's remains go in the second
        its = list(other_process.map(measured_run, *zip(*runs, strict=True)))
    assert fitted(its[0], most_bytes=BYTES_A_STEP)["flat"]
    assert not fitted(its[1], most_bytes=BYTES_A_STEP)["flat"]
    # A checkpoint keeps some 130 KB in a run of 120 of them; each of the first twenty was seen to keep 120 to 560.
    assert fitted(its[2], most_bytes=BYTES_A_STEP + 3 * BYTES_A_CHECKPOINT / EVERY)["flat"]
