"""Markdown tables of results, rendered from the JSON files that recipes, study and benchmarks write.

    python -m pumer_hf.bench.tables README.md

renews every table of a document. A table of recipes stands between `<!-- results: FILE.json [FILE.json ...] -->` and
`<!-- /results -->`; what a document shows of the study, between `<!-- study: FOLDER DATA-BACKBONE -->` and
`<!-- /study -->`; what `pumer-hf bench` measured, between `<!-- bench: FILE.json [FILE.json ...] -->` and
`<!-- /bench -->`, and of `--table`, between `<!-- paper: FILE.json -->` and `<!-- /paper -->`; what `pumer-hf measure`
did, between `<!-- measures: FILE.json [FILE.json ...] -->` and `<!-- /measures -->`. The paths are relative to the
document.
"""

import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .bench_tables import bench_table, machine_name, markdown, measures_table, paper_table
from .study_tables import study_section

TABLE = re.compile(r"(?P<start><!-- results: (?P<files>[^>]+?) -->\n).*?(?P<end><!-- /results -->)", re.DOTALL)
STUDY = re.compile(
    r"(?P<start><!-- study: (?P<folder>\S+) (?P<group>\S+) -->\n).*?(?P<end><!-- /study -->)", re.DOTALL
)

BENCH = re.compile(r"(?P<start><!-- bench: (?P<files>[^>]+?) -->\n).*?(?P<end><!-- /bench -->)", re.DOTALL)
MEASURES = re.compile(r"(?P<start><!-- measures: (?P<files>[^>]+?) -->\n).*?(?P<end><!-- /measures -->)", re.DOTALL)
PAPER = re.compile(r"(?P<start><!-- paper: (?P<file>\S+) -->\n).*?(?P<end><!-- /paper -->)", re.DOTALL)


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


def render(document: Path) -> str:
    """The text of a document with its tables made anew."""

    def read(names: str) -> dict[str, dict[str, Any]]:
        files = [document.parent / name for name in names.split()]
        return {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in files}

    def table(match: re.Match[str]) -> str:
        return match["start"] + results_table(read(match["files"])) + match["end"]

    def bench(match: re.Match[str]) -> str:
        return match["start"] + bench_table([*read(match["files"]).values()]) + match["end"]

    def measures(match: re.Match[str]) -> str:
        return match["start"] + measures_table(read(match["files"])) + match["end"]

    def paper(match: re.Match[str]) -> str:
        (report,) = read(match["file"]).values()
        return match["start"] + paper_table(report) + match["end"]

    def study(match: re.Match[str]) -> str:
        return match["start"] + study_section(document, match["folder"], match["group"]) + match["end"]

    text = document.read_text(encoding="utf-8")
    parts = ((TABLE, table), (STUDY, study), (BENCH, bench), (MEASURES, measures), (PAPER, paper))
    for pattern, replacement in parts:
        text = pattern.sub(replacement, text)
    return text


if __name__ == "__main__":
    for name in sys.argv[1:]:
        Path(name).write_text(render(Path(name)), encoding="utf-8")
