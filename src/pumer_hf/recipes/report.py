"""Teacher against student: what reduction costs in accuracy and wins in speed, as a table."""

import json
import os
from pathlib import Path
from typing import Any

from ..bench.cost import cost_rows, format_table, speed_note


def format_report(report: dict[str, Any], names: list[str]) -> str:
    """The results of a recipe as a text table, a column per model name and a last one that compares first and last."""
    first, last = names[0], names[-1]
    rows = [["", *names, ""]]

    def add_accuracy(label: str, values: dict[str, float]) -> None:
        change = f"{values[last] - values[first]:+.2f} points" if len(names) > 1 else ""
        rows.append([label, *(f"{values[name]:.2f}" for name in names), change])

    for metric in [name for name, value in report[first].items() if isinstance(value, float)]:
        add_accuracy(f"{metric.replace('_', ' ')}, %", {name: report[name][metric] for name in names})
    for kind in sorted(report[first].get("accuracy_by_kind", {})):
        add_accuracy(f"  {kind}", {name: report[name]["accuracy_by_kind"][kind] for name in names})
    table = format_table(rows + cost_rows(report, names))
    baselines = ", ".join(f"{name.replace('_', ' ')} {value:.1f} %" for name, value in report["baselines"].items())
    notes = [f"Baselines that see no image: {baselines}."] if baselines else []
    missing = [f"{split} {number}" for split, number in report.get("missing_images", {}).items() if number]
    notes += [f"Rows left out since an image is missing: {', '.join(missing)}."] if missing else []
    return "\n".join([table, *notes, speed_note(report)])


def write_json(path: Path, value: Any, indent: int | None = 2) -> None:
    """Write a JSON file whole or not at all: a run that is killed meanwhile leaves the file that was there."""
    part = path.with_name(f"{path.name}.part")
    part.write_text(json.dumps(value, indent=indent) + "\n", encoding="utf-8")
    os.replace(part, path)
