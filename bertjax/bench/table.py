"""What a bench prints: the machine, the text, a line for each contender, a line for each pair of them."""

import importlib.metadata
import os
import platform
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

WIDTH = 100
_PACKAGES = ("jax", "flax", "numpy", "tokenizers")


class Column(NamedTuple):
    key: str
    title: str
    show: Callable[[float], str]
    compared: bool = True  # whether ours is divided by a peer's


def number(value: float) -> str:
    """Three digits, or all of a whole number's."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def gibibytes(value: float) -> str:
    return f"{value / 2**30:.2f} GiB"


def share(value: float) -> str:
    return f"{value:.1%}"


def seconds(value: float) -> str:
    return f"{number(value)} s"


def cosine(value: float) -> str:
    return f"{value:.6f}"


def ratio(value: float) -> str:
    return f"{number(value)}x"


def render(report: dict[str, Any], columns: Sequence[Column]) -> str:
    """The report of a bench, as a text of at most 100 columns."""
    bench = report["bench"]
    rows = {"ours": report[bench]} | {name: peer[bench] for name, peer in report.get("peers", {}).items()}
    cells = [["", *(column.title for column in columns)]]
    cells += [[name, *(_cell(column, figures) for column in columns)] for name, figures in rows.items()]
    for name, of_peer in report.get("ratios", {}).items():
        cells.append([f"ours / {name}", *(_ratio_cell(column, of_peer) for column in columns)])
    lines = heading(report)
    return "\n".join([*lines, "", *_aligned(cells), "", *_legend(report)])


def heading(report: dict[str, Any]) -> list[str]:
    """Bench, machine, text, model and ceiling, a labelled paragraph each."""
    machine, text, ceiling = report["machine"], report["text"], report.get("ceiling")
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    memory = f"{machine['memory_bytes'] / 2**30:.0f} GiB memory; " if machine["memory_bytes"] else ""
    paragraphs = {
        "machine": f"{machine['processor']}, {machine['cores']} cores, {memory}{machine['system']}; {versions}",
        "text": (
            f"{text['name']}: {text['tokens']:,} tokens, vocabulary {text['vocabulary']:,}, "
            f"{text['tokens_per_pair']:.1f} tokens in a pair of at most {text['max_length']}"
        ),
        "model": report["model"],
    }
    if ceiling:
        paragraphs["ceiling"] = (
            f"{ceiling['devices']} x {ceiling['device']}: matrix products {_giga(ceiling['float32_flops'])}FLOP/s in "
            f"float32, {_giga(ceiling['bf16_flops'])}FLOP/s in bf16; "
            f"copies {_giga(ceiling['copy_bytes_per_second'])}B/s"
        )
    lines = [f"bertjax bench {report['bench']}, {_times(report['rounds'])}: median (lowest to highest)"]
    for label, paragraph in paragraphs.items():
        lines += textwrap.wrap(f"{label:<8} {paragraph}", WIDTH, subsequent_indent=" " * 9, break_on_hyphens=False)
    return lines


def _times(rounds: int) -> str:
    return f"{rounds} rounds" if rounds > 1 else "1 round"


def describe_machine(peers: Sequence[str]) -> dict[str, Any]:
    """Processor, cores, memory, system and versions, those of the peers' packages among them."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    names = os.sysconf_names if hasattr(os, "sysconf_names") else {}
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if "SC_PHYS_PAGES" in names else None
    return {
        "processor": _processor(),
        "cores": cores,
        "memory_bytes": memory,
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "versions": {"python": platform.python_version()} | _versions((*_PACKAGES, *peers)),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _versions(packages: Sequence[str]) -> dict[str, str]:
    installed = {}
    for name in packages:
        try:
            installed[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return installed


def _giga(value: float) -> str:
    return f"{number(value / 1e9)} G"


def _cell(column: Column, figures: dict[str, Any]) -> str:
    if column.key not in figures:
        return "-"
    return _with_ends(*(column.show(value) for value in (figures[column.key], *figures["spread"][column.key])))


def _ratio_cell(column: Column, of_peer: dict[str, Any]) -> str:
    if column.key not in of_peer or not column.compared:
        return "-"
    return _with_ends(*(ratio(value) for value in of_peer[column.key]))


def _with_ends(median: str, low: str, high: str) -> str:
    if low == high:
        return median
    unit = next((unit for unit in (" GiB", " s", "%", "x") if low.endswith(unit) and high.endswith(unit)), "")
    return f"{median} ({low.removesuffix(unit)}-{high})"  # the unit once


def _aligned(cells: list[list[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = []
    for first, *rest in cells:
        others = (f"{cell:>{width}}" for cell, width in zip(rest, widths[1:], strict=True))
        lines.append("  ".join([f"{first:<{widths[0]}}", *others]).rstrip())
    return lines


def _legend(report: dict[str, Any]) -> list[str]:
    notes = []
    if "ceiling" in report:
        notes.append(
            "Share of the ceiling: operations of the matrix products that real tokens need (no padding, no empty "
            "prediction slots, nothing computed twice"
            + ("; backward counted as two forwards" if report["bench"] == "train" else "")
            + "), against the largest rate of the same precision."
        )
    if "ratios" in report:
        notes.append("Ratios are of runs of the same round.")
    return [line for note in notes for line in textwrap.wrap(note, WIDTH)]
