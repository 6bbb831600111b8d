"""Markdown tables of results, rendered from the JSON files that recipes, study and benchmarks write.

    python benchmarks/render.py README.md

renews every table of a document. A table stands between `<!-- KIND: FILE.json [FILE.json ...] -->` and
`<!-- /KIND -->`, where KIND is `results` for what recipes write, `bench` for `pumer-hf bench`, `paper` for
`benchmarks/paper.py`, `onnx` for `pumer-hf export`, and `measures` for `pumer-hf measure`; what a document
shows of the study, between `<!-- study: FOLDER DATA-BACKBONE -->` and `<!-- /study -->`.
The paths are relative to the document.
"""

import argparse
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pumer_hf.bench.environment import machine_name

from .bench_tables import bench_table, markdown, measures_table, onnx_table, paper_table
from .study_results import Summary
from .study_tables import change, study_section

BLOCK = re.compile(
    r"(?P<start><!-- (?P<kind>[a-z]+): (?P<names>[^>]+?) -->\n).*?(?P<end><!-- /(?P=kind) -->)", re.DOTALL
)


def headline(report: Mapping[str, Any]) -> str:
    """Name of the metric that tables show: accuracy, or recall@1 of retrieval."""
    return "accuracy" if "accuracy" in report else "text_to_image_recall@1"


ONE_RUN = "Each row is one run."
SEVERAL_SEEDS = (
    "Where n is given, that many students were trained from one teacher, a seed each: mean, and [lowest, highest] of "
    "the change in points and of the speed. The other rows are one run each."
)


def results_table(results: dict[str, dict[str, Any]]) -> str:
    """One row per `results.json` of a recipe, by its name: what the student costs in accuracy and wins in speed; and a
    line about how many students a row is of.
    """
    header = ["", "teacher", "PuMer student", "baseline without image", "measured speed", "machine", "GFLOPs"]
    rows = [header]
    for name, report in results.items():
        metric = headline(report["teacher"])
        teacher, student = report["teacher"][metric], report["student"][metric]
        baseline = max(report["baselines"].values(), default=None)
        rows.append(
            [
                name if metric == "accuracy" else f"{name} ({metric.replace('_', '-')})",
                f"{teacher:.2f} %",
                f"{student:.2f} % ({_change(report, student - teacher)})",
                "" if baseline is None else f"{baseline:.1f} %",
                _speed(report),
                machine_name(report),
                f"{report['gflops']['teacher']:.4f} -> {report['gflops']['student']:.4f}",
            ]
        )
    note = SEVERAL_SEEDS if any("seeds" in report for report in results.values()) else ONE_RUN
    return f"{markdown(rows)}\n{note}\n"


def _change(report: Mapping[str, Any], single: float) -> str:
    """The change of the student against its teacher, over its seeds if there are several."""
    if "seeds" not in report:
        return f"{single:+.2f}"
    summary = Summary(tuple(report["seeds"]))
    return change(summary, {"value": report["teacher"][headline(report["teacher"])]}, with_speed=False)


def _speed(report: Mapping[str, Any]) -> str:
    """The measured speed of the student, over its seeds if there are several."""
    if "seeds" not in report:
        return f"{report['throughput']['ratio']:.2f}x"
    speeds = [run["speed"] for run in report["seeds"]]
    return f"{Summary(tuple(report['seeds'])).speed:.2f}x [{min(speeds):.2f}x, {max(speeds):.2f}x]"


BLOCKS: Mapping[str, Callable[[dict[str, dict[str, Any]]], str]] = {
    "results": results_table,
    "bench": lambda reports: bench_table([*reports.values()]),
    "paper": lambda reports: "\n".join(map(paper_table, reports.values())),
    "onnx": lambda reports: onnx_table([*reports.values()]),
    "measures": measures_table,
}
"""What stands in a block of each kind, from its reports by name."""


def render(document: Path) -> str:
    """The text of a document with its tables made anew."""

    def block(match: re.Match[str]) -> str:
        kind, names = match["kind"], match["names"].split()
        if kind == "study":
            own = study_section(document, *names)
        elif kind in BLOCKS:
            files = [document.parent / name for name in names]
            own = BLOCKS[kind]({file.stem: json.loads(file.read_text(encoding="utf-8")) for file in files})
        else:
            return match[0]
        return match["start"] + own + match["end"]

    return BLOCK.sub(block, document.read_text(encoding="utf-8"))


def render_command(description: str, arguments: Sequence[str] | None = None) -> None:
    """The main function of `benchmarks/render.py`.

    Args:
        description: for `--help`.
        arguments: the command line; default `sys.argv[1:]`.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("documents", type=Path, nargs="+", metavar="DOCUMENT.md")
    for document in parser.parse_args(arguments).documents:
        document.write_text(render(document), encoding="utf-8")
