"""The rates of matrix products that the makers of devices publish."""

import re

# Dense bfloat16 products with float32 sums, without the sparsity that doubles some data sheets' figures; by what JAX
# calls the device, the first that fits. Of a card in several forms, the one without a suffix is SXM.
_BF16_FLOPS = (
    (r"H100 NVL|H200 NVL", 835e12),
    (r"H100 PCIe", 756e12),
    (r"H100|H200|GH200|H800", 989e12),
    (r"H20", 148e12),
    (r"G?B200", 2250e12),
    (r"A100|A800", 312e12),
    (r"A30", 165e12),
    (r"A10", 125e12),
    (r"L40S", 362e12),
    (r"L40", 181e12),
    (r"L4", 121e12),
    (r"RTX 4090", 165e12),
    (r"RTX A6000", 155e12),
    (r"RTX 3090", 71e12),
)


def bf16_flops(device_kind: str) -> float | None:
    """Returns a device's peak in operations a second; None for one that is not known.

    Args:
      device_kind: as `jax.Device.device_kind` has it, such as "NVIDIA H100 80GB HBM3".
    """
    return next((peak for name, peak in _BF16_FLOPS if re.search(rf"\b({name})\b", device_kind)), None)
