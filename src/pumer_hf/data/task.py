"""What a task is to a recipe, and how its splits are loaded. Each task is an instance in a file of its own."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from datasets import Dataset
from transformers import EvalPrediction, ProcessorMixin

from ..results import PERCENT, MetricType
from .arguments import SPLITS, DataArguments
from .collator import Collator
from .columns import Convert
from .downloads import check_downloaded
from .hub import load_hub_split

Metrics = Callable[[EvalPrediction], dict[str, float]]


@dataclass(frozen=True)
class TaskData:
    """Three splits with the task's columns, images undecoded, and `origin`: where a row is from, for messages."""

    train: Any
    """A `Dataset`, or an `IterableDataset` if it is streamed."""
    validation: Dataset
    test: Dataset
    labels: tuple[str, ...] = ()
    """The classes in the order of the logits; none for retrieval."""
    missing_images: Mapping[str, int] = field(default_factory=dict)
    """For each split that was read from files with `missing_images="skip"`: how many of its rows were left out."""
    unlabelled: Mapping[str, int] = field(default_factory=dict)
    """For each split that was loaded: how many of its rows were left out since they have no label."""
    unknown_answers: Mapping[str, int] = field(default_factory=dict)
    """In VQA, for each split: how many of its rows have no answer among the labels. Those of training are left out."""


@dataclass(frozen=True)
class Task:
    """A task: from its data to model inputs and a score."""

    name: str
    head: str
    """How the model classes end that have its head: `"ForQuestionAnswering"`."""
    arguments: type[DataArguments]
    """The `data` block."""
    load: Callable[[Any, Sequence[str] | None], TaskData]
    """From the block, and the labels of a model that exists already."""
    collator: Callable[[ProcessorMixin, TaskData, Any, bool], Collator]
    """From the processor, the data, the block, and whether it is for training."""
    metrics: Callable[[Dataset, Sequence[str]], Metrics]
    """`compute_metrics` of one dataset, given the labels. It may use the columns of the dataset: the predictions come
    in the order of its rows ([`check_rows`])."""
    texts: Callable[[Dataset], Sequence[str]]
    """All texts of a dataset, from which a model from scratch gets its vocabulary."""
    baselines: Callable[[TaskData], dict[str, float]]
    """What is scored on the test data without looking at images, in the unit of the main metric."""
    best_metric: str = "accuracy"
    """The metric that decides which checkpoint is the best one; one of `metric_types`."""
    metric_types: Mapping[str, MetricType] = field(default_factory=lambda: {"accuracy": PERCENT})
    """What each metric means that `metrics` gives or that a run reports: its unit and its direction."""
    model_config: Mapping[str, Any] = field(default_factory=dict)
    """Config fields that the head needs."""

    def __post_init__(self) -> None:
        if self.best_metric not in self.metric_types:
            raise ValueError(
                f"best_metric={self.best_metric!r} of the task {self.name}: metric_types has "
                f"{', '.join(self.metric_types)}; add its unit and its direction there"
            )


def load_splits(
    args: DataArguments,
    read: Callable[[list[str], str | None, str, list[str] | None], Dataset],
    scenes: Callable[[str, int], Dataset],
    columns: Mapping[str, Convert],
) -> TaskData:
    """The splits, from where `args` says; `test` is the validation split unless it is given, and all three are the
    same if `args.only` names one. No labels yet.

    Args:
        args: the `data` block.
        read: reads files; arguments: the files, the folder of the images, the name of the split, and a list for the
            origins of the rows that are left out since an image is missing (None: that is an error).
        scenes: makes digit scenes; arguments: the split and how many.
        columns: what a Hub dataset must have, see [`load_hub_split`].
    """
    check_downloaded(args)
    splits: dict[str, Any] = {}
    missing: dict[str, int] = {}
    unlabelled: dict[str, list[str]] = {}
    for split in args.needed_splits:
        if args.dataset is not None:
            splits[split] = load_hub_split(args, split, columns, unlabelled.setdefault(split, []))
        elif args.has_files:
            skipped: list[str] | None = [] if args.missing_images == "skip" else None
            splits[split] = read(args.files(split) or [], args.image_dir, split, skipped)
            if skipped is not None:
                missing[split] = len(skipped)
        else:
            splits[split] = scenes(split, args.train_scenes if split == "train" else args.eval_scenes)
    source = {name: name if name in splits else args.needed_splits[-1] for name in SPLITS}
    return TaskData(
        **{name: splits[own] for name, own in source.items()},
        missing_images={name: missing[own] for name, own in source.items() if own in missing},
        unlabelled={split: len(origins) for split, origins in unlabelled.items()},
    )


def check_rows(prediction: EvalPrediction, num_rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Logits and labels of a dataset, a row each in its order; raises `ValueError` if there are more or fewer.

    That is how the Trainer and [`predict`] gather them from any number of processes: the rows come back in order, and
    what the Trainer repeated to fill the last batch is dropped. So a metric of all rows is exact, where a mean of
    the processes' means would not be.
    """
    logits, labels = prediction.predictions, prediction.label_ids
    if len(logits) != num_rows:
        raise ValueError(f"{len(logits)} predictions for {num_rows} rows: evaluate on the dataset of the metric")
    return logits, labels
