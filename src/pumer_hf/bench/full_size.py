"""Full-size models of the paper's tasks, with random weights: the cost of a forward does not depend on the weights."""

from typing import Any

import torch

from ..data.tasks import TASKS
from ..models.encoders.base import PuMerPreTrainedModel
from ..models.families import FAMILIES, preset, task_name


def paper_model(
    backbone: str, task: str, reduction: Any = "preset", image_size: int = 384, **overrides: Any
) -> PuMerPreTrainedModel:
    """Make a full-size model for a task of the paper, with random weights, in eval mode.

    Args:
        backbone: the name of a family.
        task: the name of a task, or an old name.
        reduction: `"preset"` for the paper's, or any form that [`parse_reduction`] takes.
        image_size: side of the image in pixels.
        **overrides: other fields of the config.

    Raises:
        ValueError: there is no such backbone or task.
    """
    schedule = preset(backbone, task) if reduction == "preset" else reduction
    if backbone not in FAMILIES or task_name(task) not in TASKS:
        raise ValueError(f"{backbone}/{task}: choose one of {', '.join(FAMILIES)} and one of {', '.join(TASKS)}")
    family, row = FAMILIES[backbone], TASKS[task_name(task)]
    labels = {} if row.num_labels is None else {"num_labels": row.num_labels}
    fields = {**labels, **row.model_config, **overrides}
    torch.manual_seed(0)
    return family.model_for(row.head)(family.config_class(image_size=image_size, reduction=schedule, **fields)).eval()
