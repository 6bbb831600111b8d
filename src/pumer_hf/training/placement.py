"""Where models live when several processes train: whole on each, or shared out."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from accelerate import Accelerator, DistributedType
from torch import nn
from torch.distributed.fsdp import fully_shard
from transformers import PreTrainedModel, TrainingArguments
from transformers.integrations.deepspeed import unset_hf_deepspeed_config


@contextmanager
def whole_models(args: TrainingArguments) -> Iterator[None]:
    """Models that are loaded inside are whole in every process, also where ZeRO-3 would share them out."""
    if args.deepspeed_plugin is None:
        yield
        return
    unset_hf_deepspeed_config()
    try:
        yield
    finally:
        args.deepspeed_plugin.set_deepspeed_weakref()


def place_teacher(teacher: PreTrainedModel, accelerator: Accelerator, shard: bool) -> nn.Module:
    """The teacher, ready for forward passes beside a student that `accelerator` trains.

    It is not prepared with the accelerator, which would take it for a model that it trains.

    Args:
        teacher: a whole model, or one that ZeRO-3 shared out when it was loaded, which stays so.
        accelerator: that of the student.
        shard: share the parameters out over the processes, instead of holding all of them in each.

    Raises:
        ValueError: `shard` without ZeRO-3 or FSDP.
    """
    plugin = accelerator.state.deepspeed_plugin
    zero3 = plugin is not None and plugin.zero_stage == 3
    in_parts = any(parameter.numel() == 0 for parameter in teacher.parameters())
    if plugin is not None:
        teacher = teacher.to(plugin.hf_ds_config.dtype())  # of the student, and of the inputs
    if zero3 and (shard or in_parts):
        return _zero3(teacher)
    teacher = teacher.to(accelerator.device)
    if not shard:
        return teacher
    if accelerator.distributed_type != DistributedType.FSDP:
        raise ValueError("shard_teacher=True needs DeepSpeed ZeRO-3 or FSDP: leave it out for any other launch")
    for module in teacher.modules():
        if type(module).__name__ in (teacher._no_split_modules or ()):
            fully_shard(module)
    return fully_shard(teacher)


def _zero3(teacher: PreTrainedModel) -> nn.Module:
    import deepspeed  # an optional dependency

    bf16 = next(teacher.parameters()).dtype == torch.bfloat16
    config = {
        "train_micro_batch_size_per_gpu": 1,  # has no meaning without an optimizer, but must be there
        "zero_optimization": {"stage": 3},
        "bf16": {"enabled": bf16},
    }
    engine, *_ = deepspeed.initialize(model=teacher, config=config)
    return engine
