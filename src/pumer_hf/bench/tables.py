"""Markdown tables of results, rendered from the JSON files that the recipes write.

    python -m pumer_hf.bench.tables README.md

renews every table of a document. A table stands between `<!-- results: FILE.json [FILE.json ...] -->` and
`<!-- /results -->`; the paths are relative to the document.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

TABLE = re.compile(r"(?P<start><!-- results: (?P<files>[^>]+?) -->\n).*?(?P<end><!-- /results -->)", re.DOTALL)


def results_table(results: dict[str, dict[str, Any]]) -> str:
    """One row per `results.json` of a recipe, by its name: what the student costs in accuracy and wins in speed."""
    header = ["", "teacher", "PuMer student", "baseline without image", "measured speed", "GFLOPs", "machine"]
    rows = [header, ["---"] * len(header)]
    for name, report in results.items():
        metric = "accuracy" if "accuracy" in report["teacher"] else "text_to_image_recall@1"
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

    return TABLE.sub(table, document.read_text(encoding="utf-8"))


if __name__ == "__main__":
    for name in sys.argv[1:]:
        Path(name).write_text(render(Path(name)), encoding="utf-8")
