"""How much of a model's accuracy it owes to the image: the same questions without it, and with a wrong one."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import torch
from datasets import Dataset, Image, concatenate_datasets
from torch import Tensor

from ..data.collator import Collator
from ..data.task import Task, TaskData
from ..models.encoders.base import PuMerPreTrainedModel
from ..results import Evaluation
from .recipe import RecipeTrainingArguments
from .run_results import evaluate


def evaluate_image_use(
    task: Task, args: RecipeTrainingArguments, model: PuMerPreTrainedModel, data: TaskData, collator: Collator
) -> dict[str, Evaluation]:
    """Evaluate a model on the test data three times.

    Returns:
        `own_image` is the usual evaluation. In `no_image` the pixel values are all 0, a picture of the mean colour of
        the processor. In `wrong_image` each row has the image of another row ([`with_wrong_images`]).

    Raises:
        ValueError: the task is retrieval, which has no text without its image, or all rows have the same image.
    """
    if task.evaluate is not None:
        raise ValueError(f"task={task.name!r}: it has its own evaluation; give a task that predicts a label per row")
    wrong = replace(data, test=with_wrong_images(data.test))
    return {
        "own_image": evaluate(task, args, model, data, collator),
        "no_image": evaluate(task, args, model, data, cast(Collator, without_images(collator))),
        "wrong_image": evaluate(task, args, model, wrong, collator),
    }


def without_images(collator: Callable[[list[dict[str, Any]]], dict[str, Tensor]]) -> Callable:
    """Return a collator whose batches are those of `collator`, but with pixel values that are all 0."""

    def collate(rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        batch = collator(rows)
        return {name: torch.zeros_like(value) if name == "pixel_values" else value for name, value in batch.items()}

    return collate


def with_wrong_images(dataset: Dataset) -> Dataset:
    """Give each row the image of another picture: of the next one in the dataset, and the last row that of the first.

    Rows with the same image get the same wrong one. A row with two images gets two of another row.

    Raises `ValueError` if all rows have the same image.
    """
    columns = [name for name, feature in dataset.features.items() if isinstance(feature, Image)]
    first: dict[tuple, int] = {}
    pictures = []
    for number, row in enumerate(dataset.select_columns(columns)):
        picture = tuple(row[name]["bytes"] or row[name]["path"] for name in columns)
        first.setdefault(picture, number)
        pictures.append(picture)
    if len(first) < 2:
        raise ValueError(f"dataset: its {len(dataset)} rows have one image; give rows with at least two images")
    numbers = list(first.values())
    following = dict(zip(first, [*numbers[1:], numbers[0]], strict=True))
    images = dataset.select_columns(columns).select([following[picture] for picture in pictures])
    return concatenate_datasets([dataset.remove_columns(columns), images], axis=1)
