"""Runs the Python blocks of pages, each page in a folder and a namespace of its own, and reports as JSON.

    python page_runner.py JOBS.json REPORTS.json

It is a program of its own, so that the blocks use an installed wheel and not the repository.
"""

import contextlib
import io
import json
import os
import sys
import traceback
import warnings
from pathlib import Path

import torch


def run_page(job):
    """Run a page's blocks in order until one fails, and return what each printed, and its error or None."""
    os.chdir(job["folder"])
    names = {"__name__": "__main__"}
    reports = []
    for line, code in [(0, job["before"]), *job["blocks"], (0, job["after"])]:
        printed, error = io.StringIO(), None
        try:
            with contextlib.redirect_stdout(printed):
                exec(compile("\n" * (line - 1) + code, job["page"], "exec"), names)
        except Exception:
            error = traceback.format_exc()
        reports.append({"printed": printed.getvalue(), "error": error})
        if error is not None:
            break
    return reports


def main():
    jobs, reports = map(Path, sys.argv[1:])
    torch.set_num_threads(1)
    import pumer_hf

    warnings.simplefilter("error")
    for text in ("`is_gradient_checkpointing` is deprecated", "`past_key_values` is deprecated"):
        warnings.filterwarnings("ignore", text, FutureWarning)
    ran = {job["page"]: run_page(job) for job in json.loads(jobs.read_text())}
    reports.write_text(json.dumps({"package": pumer_hf.__file__, "pages": ran}))


if __name__ == "__main__":
    main()
