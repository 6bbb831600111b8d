"""The table of the tasks: a line for each, and the only place that lists them."""

from ..models.encoders.base import PuMerPreTrainedModel
from ..models.families import FAMILIES, task_name, task_of
from .nlvr2 import NLVR2
from .retrieval import RETRIEVAL
from .snli_ve import SNLI_VE
from .task import Task
from .vqa import VQA

TASKS: dict[str, Task] = {task.name: task for task in (VQA, NLVR2, SNLI_VE, RETRIEVAL)}


def register_task(task: Task) -> None:
    """Add a task of another package to the table. If a new family has its head, register that family first.

    Raises:
        ValueError: another task has the same name, or had it in an earlier version; or no family has its head.
    """
    if TASKS.get(task.name, task) is not task:
        raise ValueError(f"task.name={task.name!r}: another task has this name, choose a new one")
    if task_name(task.name) != task.name:
        raise ValueError(f"task.name={task.name!r}: it is read as {task_name(task.name)!r}, choose another name")
    heads = dict.fromkeys(head for family in FAMILIES.values() for head in family.heads)
    if task.head not in heads:
        raise ValueError(f"task.head={task.head!r}: no family has such a head: choose one of {', '.join(heads)}")
    TASKS[task.name] = task


def task_of_model(model: PuMerPreTrainedModel) -> Task | None:
    """Return the task of a model ([`find_task`]); None if the model has no head, or a head for an unknown task."""
    return find_task(model.config.task, type(model).__name__)


def find_task(name: str | None, architecture: str) -> Task | None:
    """Return the task that a config names. If the table does not have that one, return the task of the head.

    Args:
        name: `config.task`.
        architecture: the name of its class, as of [`task_of`].
    """
    return TASKS.get(name or "") or TASKS.get(task_of(architecture) or "")
