"""Low-rank adapters in a stage of a recipe: they learn in place of the weights, and become a part of them at the end.

So a stage of adapters saves a whole model, as any other stage does. Its checkpoints have the adapters alone.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from transformers import PreTrainedModel, Trainer
from transformers.integrations import is_deepspeed_zero3_enabled
from transformers.utils import is_peft_available

from ..release import extra_command
from .recipe import Recipe, check_values


def check_adapters(recipe: Recipe) -> None:
    """Check that the adapters of a recipe can be made, and become a part of the weights.

    Raises:
        ValueError: a field of `model.lora` is unknown, or another part of the recipe does not go with adapters.
        ImportError: peft is not installed.
    """
    fields = cast("dict[str, Any] | None", recipe.model.lora)
    if fields is None:
        return
    if not is_peft_available():
        raise ImportError(f"model.lora={fields}: its package is not installed: {extra_command('lora')}")
    from peft import LoraConfig  # an optional dependency

    check_values("model.lora", fields, LoraConfig)
    args = recipe.training
    if is_deepspeed_zero3_enabled() or args.fsdp:
        raise ValueError("model.lora: each process needs the whole model: launch with DDP or DeepSpeed ZeRO-2")
    if args.shard_teacher:
        raise ValueError("training.shard_teacher: with model.lora the teacher is the student without its adapters")


def with_adapters(model: PreTrainedModel, fields: Mapping[str, Any]) -> Any:
    """Return a model with new adapters, which alone learn.

    Args:
        model: the model, which is changed.
        fields: fields of peft's `LoraConfig`.
    """
    from peft import LoraConfig, get_peft_model  # an optional dependency

    return get_peft_model(model, LoraConfig(**fields))


def save_merged(trainer: Trainer, adapted: Any) -> None:
    """Make the adapters of a trained model a part of its weights, and save it with its processor.

    Args:
        trainer: the trainer of the stage, which names the folder.
        adapted: its model, from [`with_adapters`].
    """
    model = adapted.merge_and_unload()
    if trainer.args.should_save:
        folder = Path(str(trainer.args.output_dir))
        model.save_pretrained(folder)
        if trainer.processing_class is not None:
            trainer.processing_class.save_pretrained(folder)
