"""What the report of a bug says about versions, the installation and the machine: `pumer-hf env` prints it."""

import platform
from collections.abc import Iterator

import torch
from huggingface_hub.constants import HF_HUB_OFFLINE

from ..wheel import installation_kind
from .environment import Environment, installed

EXTRAS = ("peft", "onnx", "onnxruntime", "gradio")
"""Packages that this package can do without. Result files do not name their versions."""


def facts(version: str) -> Iterator[tuple[str, object]]:
    """Yield each fact with its name. No fact names a user, a computer or a folder.

    Args:
        version: the version of this package whose code runs. PYTHONPATH can hide the installed one.
    """
    environment = Environment.current().to_dict()
    yield from {**environment["versions"], "pumer-hf": version, **installed(EXTRAS)}.items()
    yield "installation", installation_kind()
    yield "platform", platform.platform()
    for name, value in environment["machine"].items():
        if name != "system":  # the platform says more
            yield name.replace("_", " "), value
    if torch.cuda.device_count() > 1:
        yield "gpus", torch.cuda.device_count()
    if torch.backends.mps.is_available():
        yield "gpu", "Apple, by MPS"
    yield "offline", "yes" if HF_HUB_OFFLINE else "no"
