"""The results of a command as a JSON file, if one is wanted. The screen shows what is for people."""

import json
from pathlib import Path
from typing import Any

from ..folders import check_file


def check_output(output: str | Path | None) -> None:
    """Raise `ValueError` or `FileNotFoundError` before the work if the results cannot be written."""
    if output is not None:
        check_file(output, "-o")


def finish(report: dict[str, Any], output: str | Path | None) -> str:
    """Write the results to a file if there is one; returns a line to print that says so, or how to get one."""
    if output is None:
        return "-o FILE.json writes all figures to a file, with the machine and the versions."
    Path(output).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return f"Written to {output}"
