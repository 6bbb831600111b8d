"""The counter of the FLOPs of a forward. The forward really runs."""

from typing import Any

import torch
from torch import Size, Tensor, nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count


def _cpu_attention_flops(query: Size, key: Size, value: Size, *args: Any, **kwargs: Any) -> int:
    return sdpa_flop_count(query, key, value)


# FlopCounterMode knows the attention kernels of GPUs only (pinned by `test_flops.py`).
_CPU_ATTENTION_FLOPS = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _cpu_attention_flops}


class FlopCounter(FlopCounterMode):
    """Counts the FLOPs of everything that runs in its context. As in papers, a multiply-add counts as one."""

    def __init__(self) -> None:
        super().__init__(display=False, custom_mapping=_CPU_ATTENTION_FLOPS)

    @property
    def count(self) -> int:
        """FLOPs of matrix products, convolutions and attention."""
        return self.get_total_flops() // 2


@torch.no_grad()
def count_flops(model: nn.Module, inputs: dict[str, Tensor]) -> tuple[int, Any]:
    """Count the FLOPs of one forward in eval mode. As in papers, a multiply-add counts as one.

    Args:
        model: a model on the device of the inputs. Its training mode does not change.
        inputs: the keyword arguments of its forward.

    Returns:
        The FLOPs of matrix products, convolutions and attention; and the outputs of the model.
    """
    training = model.training
    model.eval()
    with FlopCounter() as counter:
        outputs = model(**inputs)
    model.train(training)
    return counter.count, outputs
