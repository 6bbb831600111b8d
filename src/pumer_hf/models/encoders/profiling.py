"""The name of the reduction in profiles."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch.profiler import record_function

REDUCTION_REGION = "pumer_hf::reduction"
"""How profiles name the work that a reduction adds to a layer: collecting the evidence, deciding, moving tokens."""


def reduction_region() -> AbstractContextManager[Any]:
    """A context whose operations profiles show under `REDUCTION_REGION`. It does nothing in compiled code."""
    return nullcontext() if torch.compiler.is_compiling() else record_function(REDUCTION_REGION)
