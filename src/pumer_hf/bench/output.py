"""The results of a command as JSON: a line for the terminal, and a file if one is wanted."""

import json
from pathlib import Path
from typing import Any

from ..folders import check_file


def check_output(output: str | Path | None) -> None:
    """Raise `ValueError` or `FileNotFoundError` before the work if the results cannot be written."""
    if output is not None:
        check_file(output, "-o")


def finish(report: dict[str, Any], output: str | Path | None) -> str:
    """The results as one line of JSON, also written to a file if there is one."""
    if output is not None:
        Path(output).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return json.dumps(report)
