"""The number of CPU threads for training."""

import os
from pathlib import Path

import torch


def use_available_cores(processes: int) -> None:
    """Let torch use the cores that this process may use.

    Without `--num_cpu_threads_per_process`, `accelerate launch` starts each process with a single thread. If
    `OMP_NUM_THREADS` says more than one, this is the user's choice and stays. Without it, torch takes all cores of the
    machine, also those that this process may not use.

    Args:
        processes: number of training processes on this machine. They share the cores.
    """
    if torch.get_num_threads() == 1 or "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, available_cores() // processes))


def available_cores() -> int:
    """Return the number of cores that this process may use, by its affinity and its container (cgroup v2)."""
    affinity = getattr(os, "sched_getaffinity", None)  # Linux only
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    quota_file = Path("/sys/fs/cgroup/cpu.max")
    if quota_file.is_file():
        quota, period = quota_file.read_text().split()
        if quota != "max":
            cores = min(cores, -(-int(quota) // int(period)))
    return max(cores, 1)
