"""Markdown tables of results, rendered from the JSON files that the recipes and the study write.

    python -m pumer_hf.bench.tables README.md

renews every table of a document. A table of recipes stands between `<!-- results: FILE.json [FILE.json ...] -->` and
`<!-- /results -->`; what a document shows of the study, between `<!-- study: FOLDER DATA-BACKBONE -->` and
`<!-- /study -->`. The paths are relative to the document.
"""

import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .study_tables import study_section

TABLE = re.compile(r"(?P<start><!-- results: (?P<files>[^>]+?) -->\n).*?(?P<end><!-- /results -->)", re.DOTALL)
STUDY = re.compile(
    r"(?P<start><!-- study: (?P<folder>\S+) (?P<group>\S+) -->\n).*?(?P<end><!-- /study -->)", re.DOTALL
)


def headline(report: Mapping[str, Any]) -> str:
    """Name of the metric that tables show: accuracy, or recall@1 of retrieval."""
    return "accuracy" if "accuracy" in report else "text_to_image_recall@1"


def results_table(results: dict[str, dict[str, Any]]) -> str:
    """One row per `results.json` of a recipe, by its name: what the student costs in accuracy and wins in speed."""
    header = ["", "teacher", "PuMer student", "baseline without image", "measured speed", "GFLOPs", "machine"]
    rows = [header, ["---"] * len(header)]
    for name, report in results.items():
        metric = headline(report["teacher"])
        teacher, student = report["teacher"][metric], report["student"][metric]
        baseline = max(report["baselines"].values(), default=None)
        machine = report["machine"]
        rows.append(
            [
                name if metric == "accuracy" else f"{name} ({metric.replace('_', '-')})",
                f"{teacher:.2f} %",
                f"{student:.2f} % ({student - teacher:+.2f})",
                "" if baseline is None else f"{baseline:.1f} %",
                f"{report['throughput']['ratio']:.2f}x",
                f"{report['gflops']['teacher']:.4f} -> {report['gflops']['student']:.4f}",
                machine.get("gpu", f"{machine['processor']}, {machine['torch_threads']} threads"),
            ]
        )
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def render(document: Path) -> str:
    """The text of a document with its tables made anew."""

    def table(match: re.Match[str]) -> str:
        files = [document.parent / name for name in match["files"].split()]
        results = {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in files}
        return match["start"] + results_table(results) + match["end"]

    def study(match: re.Match[str]) -> str:
        return match["start"] + study_section(document, match["folder"], match["group"]) + match["end"]

    return STUDY.sub(study, TABLE.sub(table, document.read_text(encoding="utf-8")))


if __name__ == "__main__":
    for name in sys.argv[1:]:
        Path(name).write_text(render(Path(name)), encoding="utf-8")
