"""What devices tell of their memory, and what is said where it runs out."""

import types
from pathlib import Path

import jax
import pytest

from bertjax.errors import BertjaxError
from bertjax.parallel.memory import device_memory, enough_memory, in_words
from bertjax.storage import memory


def accelerators(*limits: int | None) -> list[types.SimpleNamespace]:
    stats = [None if limit is None else {"bytes_limit": limit} for limit in limits]
    return [types.SimpleNamespace(platform="gpu", memory_stats=lambda told=told: told) for told in stats]


def test_the_smallest_device_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    for limits, expected in (((80, 40), 36), ((None, 50), 45), ((None,), None), ((0,), None)):
        monkeypatch.setattr(jax, "local_devices", lambda limits=limits: accelerators(*limits))
        assert device_memory() == expected


def test_devices_of_a_cpu_share_what_the_system_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bertjax.parallel.memory.available_memory", lambda: 1000)
    assert device_memory() == 900 // len(jax.local_devices())
    monkeypatch.setattr("bertjax.parallel.memory.available_memory", lambda: None)
    assert device_memory() is None


def test_a_container_may_have_less_than_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = memory.available_memory()
    if machine is None:
        pytest.skip("no /proc/meminfo")
    assert machine > 2**20
    limit, used = tmp_path / "memory.max", tmp_path / "memory.current"
    monkeypatch.setattr(memory, "_LIMITS", ((str(limit), str(used), "inactive_file"),))
    used.write_text("700000\n")
    (tmp_path / "memory.stat").write_text("anon 1\ninactive_file 200000\n")
    for told, expected in (("1000000\n", 500_000), ("100000\n", 0)):
        limit.write_text(told)
        assert memory.available_memory() == expected
    limit.write_text("max\n")  # a container without a limit
    assert memory.available_memory() == pytest.approx(machine, rel=0.5)


def test_what_runs_out_is_told_on_one_line() -> None:
    for told, more in (
        ("RESOURCE_EXHAUSTED: Out of memory allocating 21818298512 bytes.", ", where 21.8 GB more were needed at once"),
        ("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 5000000 bytes.\n[tf-allocator]", None),
        ("INTERNAL: CUDA_ERROR_OUT_OF_MEMORY: out of memory", ""),
    ):
        with pytest.raises(BertjaxError) as refused, enough_memory("give fewer"):
            raise jax.errors.JaxRuntimeError(told)
        more = ", where 5.0 MB more were needed at once" if more is None else more
        assert str(refused.value) == f"there is not enough memory on cpu{more}; give fewer"
    with pytest.raises(jax.errors.JaxRuntimeError), enough_memory("give fewer"):
        raise jax.errors.JaxRuntimeError("INTERNAL: of another kind")


def test_what_cannot_be_had_runs_out() -> None:
    """It is JAX's own error that is told, whatever its words are by now."""
    with pytest.raises(BertjaxError, match="not enough memory on cpu"), enough_memory("give fewer"):
        jax.numpy.zeros(2**55, "uint8").block_until_ready()


def test_sizes_in_words() -> None:
    assert [in_words(size) for size in (79.1e9, 1e8, 99e6, 1000)] == ["79.1 GB", "0.1 GB", "99.0 MB", "0.0 MB"]
