"""The placement of models when several processes train: whole in each process, or sharded."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, DistributedType
from torch import nn
from torch.distributed.fsdp import fully_shard
from transformers import PreTrainedModel, TrainingArguments
from transformers.integrations.deepspeed import unset_hf_deepspeed_config
from transformers.utils import is_peft_available

from ..models.reducible import reduction_of


@contextmanager
def whole_models(args: TrainingArguments) -> Iterator[None]:
    """Load models whole in every process within this context, even where ZeRO-3 would shard them."""
    if args.deepspeed_plugin is None:
        yield
        return
    unset_hf_deepspeed_config()
    try:
        yield
    finally:
        args.deepspeed_plugin.set_deepspeed_weakref()


def place_teacher(teacher: PreTrainedModel, accelerator: Accelerator, shard: bool) -> nn.Module:
    """Return the teacher, ready for forward passes while `accelerator` trains the student.

    It is not prepared with the accelerator, which would treat it as a model to train.

    Args:
        teacher: a whole model, or one that ZeRO-3 sharded when it was loaded. The latter stays sharded.
        accelerator: the accelerator of the student.
        shard: whether to shard the parameters over the processes, instead of holding all of them in each.

    Raises:
        ValueError: `shard` without ZeRO-3 or FSDP.
    """
    plugin = accelerator.state.deepspeed_plugin
    zero3 = plugin is not None and plugin.zero_stage == 3
    is_sharded = any(parameter.numel() == 0 for parameter in teacher.parameters())
    if plugin is not None:
        teacher = teacher.to(plugin.hf_ds_config.dtype())  # the dtype of the student and of the inputs
    if zero3 and (shard or is_sharded):
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


@contextmanager
def as_base(model: nn.Module) -> Iterator[None]:
    """Run a model with adapters as its base inside a `with` block: without adapters, unreduced, in eval mode.

    Args:
        model: holds peft's `PeftModel`, and in it a model of this package.

    Raises:
        ValueError: it holds no such model.
    """
    adapted, reduction, training = adapted_model(model), reduction_of(model), model.training
    model.eval()
    try:
        with adapted.disable_adapter(), reduction.using({}):
            yield
    finally:
        model.train(training)


def adapted_model(model: nn.Module) -> Any:
    """Return the `PeftModel` in a model.

    Raises:
        ValueError: there is none.
    """
    if is_peft_available():
        from peft import PeftModel  # an optional dependency

        for module in model.modules():
            if isinstance(module, PeftModel):
                return module
    raise ValueError(
        f"teacher='base': {type(model).__name__} has no adapters of peft: put them into it with "
        "`peft.get_peft_model(model, LoraConfig(...))`, or give the teacher as a model of its own"
    )


def fit_checkpoint(checkpoint: Path, accelerator: Accelerator) -> None:
    """Convert a DeepSpeed checkpoint, which has a part per process, for another number of processes.

    DeepSpeed's tool makes a universal copy of the optimizer state in the checkpoint. This copy is then loaded.

    Raises:
        ValueError: the checkpoint is of ZeRO-3. DeepSpeed can load only one group of parameters from such a universal
            copy, but there are two here: with and without weight decay.
    """
    plugin = accelerator.state.deepspeed_plugin
    parts = list(checkpoint.glob("global_step*/*_optim_states.pt"))
    if plugin is None or len(parts) in (0, accelerator.num_processes):
        return
    if plugin.zero_stage == 3:
        raise ValueError(
            f"{checkpoint} was written by {len(parts)} processes, and DeepSpeed cannot continue ZeRO-3 with "
            f"{accelerator.num_processes}: launch with --num_processes {len(parts)}"
        )
    if accelerator.is_main_process and not (checkpoint / "latest_universal").is_file():
        whole = parts[0].parent
        folders = ["--input_folder", str(whole), "--output_folder", f"{whole}_universal"]
        tool = [sys.executable, "-m", "deepspeed.checkpoint.ds_to_universal", "--inject_missing_state"]
        subprocess.run([*tool, *folders], check=True)
    accelerator.wait_for_everyone()
    plugin.hf_ds_config.config["checkpoint"] = {"load_universal": True}


def _zero3(teacher: PreTrainedModel) -> nn.Module:
    import deepspeed  # an optional dependency

    bf16 = next(teacher.parameters()).dtype == torch.bfloat16
    config = {
        "train_micro_batch_size_per_gpu": 1,  # without an optimizer it has no meaning, but it is required
        "zero_optimization": {"stage": 3},
        "bf16": {"enabled": bf16},
    }
    engine, *_ = deepspeed.initialize(model=teacher, config=config)
    return engine
