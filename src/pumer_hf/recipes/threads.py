"""CPU threads for training."""

import os
from pathlib import Path

import torch


def use_available_cores(processes: int) -> None:
    """Let torch use the cores that this process may use.

    `accelerate launch` starts processes with a single thread each, unless `--num_cpu_threads_per_process` says
    otherwise; more than one thread in `OMP_NUM_THREADS` is taken as a choice and left alone. Without that, torch takes
    all cores of the machine, also those that this process may not use.

    Args:
        processes: training processes on this machine, which share the cores.
    """
    if torch.get_num_threads() == 1 or "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, available_cores() // processes))


def available_cores() -> int:
    """Cores that this process may use: its affinity, and the quota of its container (cgroup v2)."""
    affinity = getattr(os, "sched_getaffinity", None)  # Linux only
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    quota_file = Path("/sys/fs/cgroup/cpu.max")
    if quota_file.is_file():
        quota, period = quota_file.read_text().split()
        if quota != "max":
            cores = min(cores, -(-int(quota) // int(period)))
    return max(cores, 1)
