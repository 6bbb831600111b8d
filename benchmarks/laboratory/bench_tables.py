"""Markdown tables of what `pumer-hf bench` and `pumer-hf measure` measured, rendered from their JSON files."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pumer_hf.bench.environment import machine_name
from pumer_hf.bench.profiles import REGIMES
from pumer_hf.reducers import ReductionConfig, parse_reduction

from .paper import TABLES
from .paper_tables import table_cells


def markdown(cells: Sequence[Sequence[str]]) -> str:
    """A table, its header first."""
    header, *rows = cells
    return "".join(f"| {' | '.join(row)} |\n" for row in (header, ["---"] * len(header), *rows))


def report_name(report: Mapping[str, Any]) -> str:
    """The setting or the checkpoint of a report, and what is reduced at other sites than `"layers"`."""
    name = report.get("setting", report.get("checkpoint"))
    schedule = parse_reduction(report["reduction"])
    others = [part for part in (schedule.parts if schedule else ()) if part.site != "layers"]
    return " with ".join([name, *(f"{part_text(part)} at site `{part.site}`" for part in others)])


def part_text(part: ReductionConfig) -> str:
    """One part of a schedule in short: its method and its ratios."""
    return " ".join([f"`{part.method}`", *(str(getattr(part, name)) for name in part.ratios)])


def bench_table(reports: Sequence[Mapping[str, Any]]) -> str:
    """A row per report of `pumer-hf bench` on a setting or a checkpoint: the reduced model beside itself unreduced."""
    cells = [["", "batch", "throughput", "GFLOPs", "over stock", "latency at batch 1"]]
    cells[0] += [*(f"memory, {regime}" for regime in REGIMES), "reduction's time", "machine"]
    for report in reports:
        throughput = report["throughput"]
        first, *_, last = [name for name in report["gflops"] if name != "ratio"]
        how = [report["dtype"][last], *(["compiled"] if last in report["compiled"] else [])]
        precision = report.get("matmul_precision", "highest")
        how += [] if precision == "highest" else [f"`--matmul-precision {precision}`"]
        how += ["`pooled_only`"] if last in report.get("pooled_only", []) else []
        row = [", ".join([report_name(report), *how]), str(throughput["batch_size"])]
        row += [f"{throughput['ratio']:.2f}x", f"{report['gflops']['ratio']:.2f}x fewer"]
        stock = throughput.get("stock")
        row.append("" if stock is None else f"{throughput[last]['ratio'] / stock['ratio']:.2f}x")
        row.append(f"{report['latency'][last]['ratio']:.2f}x" if "latency" in report else "")
        for regime in REGIMES:
            peaks = report["memory"][regime] if "memory" in report else None
            row.append("" if peaks is None else f"{100 * peaks[last] / peaks[first]:.0f} %")
        cells.append([*row, f"{100 * report['reduction_share'][last]:.1f} %", machine_name(report)])
    return markdown(cells)


def paper_table(report: Mapping[str, Any]) -> str:
    """A table of PuMer as `pumer-hf bench --table` measured it, the paper's figures in brackets."""
    number = report["table"]
    sizes = sorted({row["batch_size"] for row in report["rows"].values() if "batch_size" in row})
    batch = f", batch {' to '.join(map(str, dict.fromkeys([sizes[0], sizes[-1]])))}" if sizes else ""
    title = f"PuMer, Table {number}, on {machine_name(report)}{batch}:\n\n"
    return title + markdown(table_cells(TABLES[number], report["rows"]))


ONNX_COLUMNS = {
    "stock": "stock transformers",
    "pytorch": "PyTorch",
    "onnxruntime_unreduced": "onnxruntime, unreduced",
    "onnxruntime": "onnxruntime",
    "int8": "int8",
}
"""The models of `pumer-hf export` beside the unreduced one in PyTorch."""


def onnx_table(reports: Sequence[Mapping[str, Any]]) -> str:
    """A row per report of `pumer-hf export` on a model that reduces: speeds over the unreduced model in PyTorch."""
    cells = [["over PyTorch, unreduced", "batch", *ONNX_COLUMNS.values(), "machine"]]
    for report in reports:
        speeds = report["throughput"]
        ratios = [f"{speeds[name]['ratio']:.2f}x" if name in speeds else "" for name in ONNX_COLUMNS]
        name = Path(report["checkpoint"]).name
        cells.append([name, str(speeds["batch_size"]), *ratios, machine_name(report)])
    return markdown(cells)


def measures_table(reports: Mapping[str, Mapping[str, Any]]) -> str:
    """A row per report of `pumer-hf measure`, by its name: what the last layer keeps, and how faithful that is; behind
    each figure what random choices get.
    """
    cells = [["", "accuracy", "recall", "precision", "sufficiency", "comprehensiveness"]]
    for name, report in reports.items():
        last = report["layers"][-1]
        row = [name, f"{report['accuracy']['reduced']:.2f} %" if "accuracy" in report else ""]
        row += [f"{last[key]:.1f} % (random {last[f'random_{key}']:.1f} %)" for key in ("recall", "precision")]
        for key in ("sufficiency", "comprehensiveness"):
            row.append(f"{report[key]:.2f} (random {report[f'random_{key}']:.2f})" if key in report else "")
        cells.append(row)
    return markdown(cells)
