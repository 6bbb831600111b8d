"""The table of the tasks: a line for each, and the only place that lists them."""

from ..models.encoders.base import PuMerPreTrainedModel
from ..models.families import task_of
from .nlvr2 import NLVR2
from .retrieval import RETRIEVAL
from .snli_ve import SNLI_VE
from .task import Task
from .vqa import VQA

TASKS: dict[str, Task] = {task.name: task for task in (VQA, NLVR2, SNLI_VE, RETRIEVAL)}


def register_task(task: Task) -> None:
    """Add a task of another package to the table.

    Raises:
        ValueError: another task has the same name.
    """
    if TASKS.setdefault(task.name, task) is not task:
        raise ValueError(f"task.name={task.name!r}: another task has this name, choose a new one")


def task_of_model(model: PuMerPreTrainedModel) -> Task | None:
    """Return the task of a model's head; None if the model has no head, or a head for an unknown task."""
    return TASKS.get(task_of(type(model).__name__) or "")
