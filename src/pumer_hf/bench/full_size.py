"""Full-size models of the paper's tasks, with random weights: the cost of a forward does not depend on the weights."""

from typing import Any

import torch

from ..configuration import preset
from ..models.encoders.base import PuMerPreTrainedModel
from ..models.families import FAMILIES

TASKS: dict[str, tuple[str, dict[str, Any]]] = {
    "vqav2": ("ForQuestionAnswering", {"num_labels": 3129}),
    "nlvr2": ("ForImagesAndTextClassification", {"num_labels": 2, "num_images": 2, "modality_type_vocab_size": 3}),
    "snli_ve": ("ForVisualEntailment", {"num_labels": 3}),
    "retrieval": ("ForImageAndTextRetrieval", {}),
}
"""By task: the end of the model's name, and fields of its config."""


def paper_model(
    backbone: str, task: str, reduction: Any = "preset", image_size: int = 384, **overrides: Any
) -> PuMerPreTrainedModel:
    """Make a full-size model for a task of the paper, with random weights, in eval mode.

    Args:
        backbone: `"vilt"` or `"meter"`.
        task: one of `TASKS`.
        reduction: `"preset"` for the paper's, or any form that [`parse_reduction`] takes.
        image_size: side of the image in pixels.
        **overrides: other fields of the config.

    Raises:
        ValueError: there is no such backbone or task.
    """
    schedule = preset(backbone, task) if reduction == "preset" else reduction
    if backbone not in FAMILIES or task not in TASKS:
        raise ValueError(f"{backbone}/{task}: choose one of {', '.join(FAMILIES)} and one of {', '.join(TASKS)}")
    family = FAMILIES[backbone]
    head, fields = TASKS[task]
    config = family.config_class(image_size=image_size, reduction=schedule, **{**fields, **overrides})
    torch.manual_seed(0)
    return family.heads[head](config).eval()
