"""What a measurement ran on, for the results JSON beside it."""

import os
import platform
import re
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("pumer-hf", "torch", "transformers", "accelerate", "datasets", "deepspeed")


def environment() -> dict[str, Any]:
    """Plain JSON types: `versions`, `machine` and `command`."""
    processes = int(os.environ.get("WORLD_SIZE", "1"))  # as launchers set it
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    machine: dict[str, Any] = {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "system": f"{platform.system()} {platform.machine()}",
    }
    if torch.cuda.is_available():
        machine["gpu"] = torch.cuda.get_device_name()
        machine["gpu_memory_gib"] = round(torch.cuda.get_device_properties(0).total_memory / 2**30, 1)
        machine["cuda"] = torch.version.cuda
    if processes > 1:
        machine["processes"] = processes
    return {"versions": versions, "machine": machine, "command": command_line(sys.argv)}


def machine_name(report: Mapping[str, Any]) -> str:
    """On what a report was measured."""
    machine = report["machine"]
    return machine.get("gpu", f"{machine['processor']}, {machine['torch_threads']} threads")


def command_line(words: Sequence[str]) -> str:
    """A command, joined by spaces, without the folder of its program and without tokens of the Hub."""
    program, *flags = words
    return without_tokens(" ".join([Path(program).name, *flags]))


def without_tokens(command: str) -> str:
    """A command with `...` for each token of the Hub."""
    return re.sub(r"(--(hub[_-]|push_to_hub_)?token[ =])\S+", r"\1...", command)


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
