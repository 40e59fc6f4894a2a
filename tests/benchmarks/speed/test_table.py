"""What a bench prints can be read: 100 columns, every figure with its ends, ratios with theirs."""

from benchmarks.speed import table
from benchmarks.speed.benches import BENCHES
from benchmarks.speed.contest import ratios, summarise

OURS = [{"pairs_per_second": rate, "peak_memory_bytes": 3 * 2**30, "share_of_ceiling": 0.25} for rate in (800, 900)]
THEIRS = [{"pairs_per_second": rate, "peak_memory_bytes": 2 * 2**30, "share_of_ceiling": 0.125} for rate in (200, 300)]
REPORT = {
    "bench": "train",
    "rounds": 2,
    "machine": table.describe_machine(()),
    "text": {"name": "a text", "tokens": 10, "vocabulary": 7, "tokens_per_pair": 45.2, "max_length": 64},
    "model": "2 layers",
    "ceiling": {
        "float32_flops": 4e11,
        "bf16_flops": 8e11,
        "copy_bytes_per_second": 3e10,
        "device": "cpu",
        "devices": 1,
    },
    "train": summarise(OURS),
    "variants": {},
    "peers": {"textbook_float32": {"train": summarise(THEIRS)}},
    "ratios": {"ours": {"textbook_float32": ratios(OURS, THEIRS)}},
}


def lines() -> list[str]:
    return table.render(REPORT, BENCHES["train"].columns).splitlines()


def row(name: str) -> list[str]:
    return next(line for line in lines() if line.startswith(name)).removeprefix(name).split("  ")


def test_at_most_100_columns():
    assert max(map(len, lines())) <= 100


def test_figures_have_median_and_ends():
    assert [cell.strip() for cell in row("ours  ") if cell] == ["850 (800-900)", "3.00 GiB", "25.0%"]


def test_ratios_have_median_and_ends_and_none_is_of_shares():
    assert [cell.strip() for cell in row("ours / textbook_float32") if cell] == ["3.5 (3-4)x", "1.5x", "-"]


def test_head_names_machine_text_and_ceiling():
    head = "\n".join(lines())
    assert "machine" in head and "a text: 10 tokens" in head and "400 GFLOP/s in float32, 800 GFLOP/s in bf16" in head


def test_numbers_are_rounded_sanely():
    shown = [table.number(value) for value in (1234.5, 99.94, 0.012345, 0)]
    assert shown == ["1,234", "99.9", "0.0123", "0"]
    assert table.gibibytes(1.5 * 2**30) == "1.50 GiB" and table.share(0.1234) == "12.3%" and table.ratio(2.0) == "2x"
