"""What a GPU's time is told to go into, of made-up kernels: there is no GPU here."""

import jax.numpy as jnp
import pytest

from benchmarks.gpu.kernels import Kernel, kernels_of, longest, shares

KERNELS = [
    Kernel("sm90_xmma_gemm_bf16bf16_tilesize128x128", 0.35),
    Kernel("gemm_fusion_dot_general_2", 0.05),
    Kernel("cudnn_generated_fort_native_sdpa_sm90_flash_bprop", 0.2),
    Kernel("loop_add_fusion_12", 0.1),
    Kernel("MemcpyD2D", 0.1),
    Kernel("loop_add_fusion_12", 0.2),
]


def test_kernels_are_told_by_kind_and_by_name() -> None:
    assert list(shares(KERNELS)) == ["products", "fusions", "attention", "copies"]
    assert shares(KERNELS) == pytest.approx({"products": 0.4, "fusions": 0.3, "attention": 0.2, "copies": 0.1})
    assert sum(kernel["seconds"] for kernel in longest(KERNELS, 60)) == pytest.approx(1)
    first, second = longest(KERNELS, 2)
    assert first == {"name": KERNELS[0].name, "times": 1, "seconds": 0.35}
    assert second == {"name": "loop_add_fusion_12", "times": 2, "seconds": pytest.approx(0.3)}


def test_a_cpu_has_none() -> None:
    ran = []
    assert kernels_of(lambda: ran.append(jnp.arange(3).sum())) == [] and ran
