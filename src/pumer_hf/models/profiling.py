"""The name of the reduction in profiles."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch.profiler import record_function

REDUCTION_REGION = "pumer_hf::reduction"
"""The name of the work that a reduction adds to a layer: collect the evidence, decide, and move tokens."""


def reduction_region() -> AbstractContextManager[Any]:
    """Return a context. Profiles show its operations under `REDUCTION_REGION`. In compiled code it does nothing."""
    return nullcontext() if torch.compiler.is_compiling() else record_function(REDUCTION_REGION)
