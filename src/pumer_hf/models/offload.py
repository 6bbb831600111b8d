"""Functions for weights that accelerate keeps on the CPU or on a disk, and loads only for a module's forward."""

from contextlib import ExitStack
from typing import Any

import torch
from accelerate.utils import align_module_device, has_offloaded_params
from torch import Tensor, nn


def is_offloaded(module: nn.Module) -> bool:
    """Return whether a weight of the module is offloaded."""
    return any(parameter.is_meta for parameter in module.parameters())


def execution_device(module: nn.Module) -> torch.device:
    """Return the device on which the offloaded parts of a module compute; the meta device if no hook loads them."""
    for part in module.modules():
        if has_offloaded_params(part):
            hook: Any = part._hf_hook
            return torch.device(hook.execution_device)
    return torch.device("meta")


def loaded_state_dict(module: nn.Module) -> dict[str, Tensor]:
    """Return the state dict of a module with its offloaded weights."""
    with ExitStack() as loaded:
        for part in module.modules():
            loaded.enter_context(align_module_device(part))
        return module.state_dict()
