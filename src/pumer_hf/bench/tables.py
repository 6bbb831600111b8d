"""Markdown tables of results, rendered from the JSON files that recipes, study and benchmarks write.

    python -m pumer_hf.bench.tables README.md

renews every table of a document. A table stands between `<!-- KIND: FILE.json [FILE.json ...] -->` and
`<!-- /KIND -->`, where KIND is `results` for what recipes write, `bench` for `pumer-hf bench`, `paper` for its
`--table`, `onnx` for `pumer-hf export`, and `measures` for `pumer-hf measure`; what a document shows of the study,
between `<!-- study: FOLDER DATA-BACKBONE -->` and `<!-- /study -->`. The paths are relative to the document.
"""

import json
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from .bench_tables import bench_table, machine_name, markdown, measures_table, onnx_table, paper_table
from .study_tables import study_section

BLOCK = re.compile(
    r"(?P<start><!-- (?P<kind>[a-z]+): (?P<names>[^>]+?) -->\n).*?(?P<end><!-- /(?P=kind) -->)", re.DOTALL
)


def headline(report: Mapping[str, Any]) -> str:
    """Name of the metric that tables show: accuracy, or recall@1 of retrieval."""
    return "accuracy" if "accuracy" in report else "text_to_image_recall@1"


def results_table(results: dict[str, dict[str, Any]]) -> str:
    """One row per `results.json` of a recipe, by its name: what the student costs in accuracy and wins in speed."""
    header = ["", "teacher", "PuMer student", "baseline without image", "measured speed", "GFLOPs", "machine"]
    rows = [header]
    for name, report in results.items():
        metric = headline(report["teacher"])
        teacher, student = report["teacher"][metric], report["student"][metric]
        baseline = max(report["baselines"].values(), default=None)
        rows.append(
            [
                name if metric == "accuracy" else f"{name} ({metric.replace('_', '-')})",
                f"{teacher:.2f} %",
                f"{student:.2f} % ({student - teacher:+.2f})",
                "" if baseline is None else f"{baseline:.1f} %",
                f"{report['throughput']['ratio']:.2f}x",
                f"{report['gflops']['teacher']:.4f} -> {report['gflops']['student']:.4f}",
                machine_name(report),
            ]
        )
    return markdown(rows)


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


if __name__ == "__main__":
    for name in sys.argv[1:]:
        Path(name).write_text(render(Path(name)), encoding="utf-8")
