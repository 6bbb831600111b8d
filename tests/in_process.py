"""Scripts run in the tests' own process: one of their own spends seconds on importing torch."""

import os
import runpy
import sys
import traceback
import warnings
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from subprocess import CompletedProcess
from unittest.mock import patch

import torch


def run_here(words: list[str], cwd: Path) -> CompletedProcess[str]:
    """What `subprocess.run(words, cwd=cwd, capture_output=True, text=True)` returns for a Python script."""
    _, script, *flags = words
    threads, folder = torch.get_num_threads(), Path.cwd()
    out, err, code = StringIO(), StringIO(), 0
    os.chdir(cwd)
    try:
        with (
            redirect_stdout(out),
            redirect_stderr(err),
            patch.object(sys, "argv", [script, *flags]),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("default")
            runpy.run_path(script, run_name="__main__")
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=err)
    except Exception:
        code = 1
        traceback.print_exc(file=err)
    finally:
        os.chdir(folder)
        torch.set_num_threads(threads)
    return CompletedProcess(words, code, out.getvalue(), err.getvalue())
