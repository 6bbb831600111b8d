"""The groups of the optimizer: which parameters learn, at which rate, and with weight decay or not."""

from typing import Any

from torch import nn

from ..models.encoders.base import PuMerPreTrainedModel
from ..models.reducible import ReducibleModel, reducible_model
from .arguments import DistillationTrainingArguments

NO_DECAY_NAMES = ("cls_token", "class_embedding", "position_embedding")

PART_RATES = ("cross_modal_learning_rate", "classifier_learning_rate")
"""The arguments with the learning rate of a part of an encoder."""


def decays(name: str, parameter: nn.Parameter) -> bool:
    """Whether weight decay applies: not to LayerNorms, biases, [CLS] tokens and position embeddings."""
    return parameter.ndim > 1 and not any(part in name for part in NO_DECAY_NAMES)


def begin_reducer_stage(model: PuMerPreTrainedModel) -> None:
    """Let only the reducers and the head learn, with the schedule as that stage uses it (TiP, Appendix A.1)."""
    reduction = model.token_reduction
    if reduction.schedule is not None:
        reduction.set([part.for_reducer_stage() for part in reduction.schedule.parts])
    reducer_ids = {id(parameter) for reducer in reduction.reducers.values() for parameter in reducer.parameters()}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(id(parameter) in reducer_ids or model.parameter_group(name) == "classifier")


def parameter_groups(model: nn.Module, args: DistillationTrainingArguments) -> list[dict[str, Any]]:
    """Return the optimizer groups of the trainable parameters.

    Each part of an encoder (PuMer, Table 5) has a group with weight decay and one without. A decoder is one part.

    Args:
        model: one of ours, or a `PeftModel` around it.
        args: the training arguments, with a learning rate for each part.

    Returns:
        Groups with `params`, `lr` and `weight_decay`, backbone first. Empty groups are left out.

    Raises:
        ValueError: the model is a decoder, and a part has a learning rate of its own.
    """
    model = reducible_model(model)
    check_rates(args, model)
    groups: dict[tuple[str, bool], dict[str, Any]] = {}
    for part in ("backbone", "cross_modal", "classifier"):
        for decay in (True, False):
            weight_decay = args.weight_decay if decay else 0.0
            groups[part, decay] = {"params": [], "lr": args.learning_rate_of(part), "weight_decay": weight_decay}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            part = model.parameter_group(name) if isinstance(model, PuMerPreTrainedModel) else "backbone"
            groups[part, decays(name, parameter)]["params"].append(parameter)
    return [group for group in groups.values() if group["params"]]


def check_rates(args: DistillationTrainingArguments, model: ReducibleModel) -> None:
    """Raise `ValueError` if a part has a learning rate of its own, but the model is a decoder, which has no parts."""
    for name in () if isinstance(model, PuMerPreTrainedModel) else PART_RATES:
        if getattr(args, name) is not None:
            raise ValueError(
                f"{name}={getattr(args, name)}: {type(model).__name__} has no such part: leave it out, and set "
                "learning_rate; for other rates of some weights, give the trainer `optimizers=`"
            )
