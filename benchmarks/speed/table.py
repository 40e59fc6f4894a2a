"""The table of a benchmark: the machine, the text, a line for each contender, a line for each pair of them."""

import importlib.metadata
import os
import platform
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bertjax.storage.cores import num_cores

WIDTH = 100
_PACKAGES = ("jax", "flax", "numpy", "tokenizers")


class Column(NamedTuple):
    key: str
    title: str
    show: Callable[[float], str]
    compared: bool = True  # whether ours is divided by a peer's


def number(value: float) -> str:
    """Formats a number with three digits, or all of its whole part."""
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
    """Returns the report of a benchmark as a text of at most 100 columns."""
    bench = report["bench"]
    rows = {"ours": report[bench]}
    rows |= {name: its[bench] for name, its in (report["variants"] | report["peers"]).items()}
    cells = [["", *(column.title for column in columns)]]
    cells += [[name, *(_cell(column, figures) for column in columns)] for name, figures in rows.items()]
    for ours, peers in report["ratios"].items():
        for peer, of_peer in peers.items():
            cells.append([f"{ours} / {peer}", *(_ratio_cell(column, of_peer) for column in columns)])
    return "\n".join([*heading(report), "", *aligned(cells), *_legend(report)])


def heading(report: dict[str, Any]) -> list[str]:
    """Returns benchmark, machine, text, model and ceiling, a labelled paragraph each."""
    machine, ceiling = report["machine"], report["ceiling"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    memory = f"{machine['memory_bytes'] / 2**30:.0f} GiB memory; " if machine["memory_bytes"] else ""
    paragraphs = {
        "machine": f"{machine['processor']}, {machine['cores']} cores, {memory}{machine['system']}; {versions}",
        "text": describe_text(report["text"]) if "text" in report else "",
        "model": report["model"],
        "ceiling": (
            f"{ceiling['devices']} x {ceiling['device']}: matrix products {_giga(ceiling['float32_flops'])}FLOP/s in "
            f"float32, {_giga(ceiling['bf16_flops'])}FLOP/s in bf16; "
            f"copies {_giga(ceiling['copy_bytes_per_second'])}B/s"
        ),
    }
    lines = [f"python -m benchmarks {report['bench']}, {_times(report['rounds'])}: median (lowest to highest)"]
    for label, paragraph in paragraphs.items():
        if paragraph:
            lines += textwrap.wrap(f"{label:<8} {paragraph}", WIDTH, subsequent_indent=" " * 9, break_on_hyphens=False)
    return lines


def describe_text(text: dict[str, Any]) -> str:
    return (
        f"{text['name']}: {text['tokens']:,} tokens, vocabulary {text['vocabulary']:,}, "
        f"{text['tokens_per_pair']:.1f} tokens in a pair of at most {text['max_length']}"
    )


def _times(rounds: int) -> str:
    return f"{rounds} rounds" if rounds > 1 else "1 round"


def describe_machine(peers: Sequence[str]) -> dict[str, Any]:
    """Returns processor, cores, memory, system and versions, those of the peers' packages among them."""
    names = os.sysconf_names if hasattr(os, "sysconf_names") else {}
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if "SC_PHYS_PAGES" in names else None
    return {
        "processor": _processor(),
        "cores": num_cores(),
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
    return _with_ends(*(ratio(value) for value in of_peer[column.key].values()))


def _with_ends(median: str, low: str, high: str) -> str:
    if low == high:
        return median
    unit = next((unit for unit in (" GiB", " s", "%", "x") if median.endswith(unit)), "")
    return f"{median.removesuffix(unit)} ({low.removesuffix(unit)}-{high.removesuffix(unit)}){unit}"  # the unit once


def aligned(cells: list[list[str]]) -> list[str]:
    """Returns a line for each row, its first cell to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = []
    for first, *rest in cells:
        others = (f"{cell:>{width}}" for cell, width in zip(rest, widths[1:], strict=True))
        lines.append("  ".join([f"{first:<{widths[0]}}", *others]).rstrip())
    return lines


def _legend(report: dict[str, Any]) -> list[str]:
    notes = [""]
    if "share_of_ceiling" in report[report["bench"]]:
        backward = "; backward counted as two forwards" if report["bench"] == "train" else ""
        notes.append(
            "Share of the ceiling: operations of the matrix products that real tokens need (no padding, no empty "
            f"prediction slots, nothing computed twice{backward}), against the largest rate of the same precision."
        )
    if report["ratios"]:
        notes.append("Ratios are of runs of the same round.")
    return [line for note in notes for line in textwrap.wrap(note, WIDTH) or [""]] if notes[1:] else []
