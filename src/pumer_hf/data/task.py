"""What a task is, and how its splits are loaded. Each task is an instance of [`Task`] in a file of its own; `tasks.py`
lists them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
import torch
from datasets import Dataset
from PIL import Image as PILImage
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


class EvaluationArguments(Protocol):
    """What an evaluation reads of the training arguments."""

    per_device_eval_batch_size: int
    disable_tqdm: bool | None

    @property
    def device(self) -> torch.device: ...

    @property
    def process_index(self) -> int: ...

    @property
    def world_size(self) -> int: ...

    def autocast(self) -> torch.autocast: ...


CARD_MODEL = "USER/MODEL"
"""The id of the model in [`Task.card_example`]."""
LOADED_EXAMPLE = f"""\
from PIL import Image
from pumer_hf import encode_example  # also registers the models with the Auto classes
from transformers import AutoModelForSequenceClassification, AutoProcessor

model = AutoModelForSequenceClassification.from_pretrained("{CARD_MODEL}")
processor = AutoProcessor.from_pretrained("{CARD_MODEL}")
"""
"""The beginning of the example of a card: it loads the model and its processor."""


@dataclass(frozen=True)
class Task:
    """A task: its data, its model, its score, and what cards and pages say about it."""

    name: str
    """The name in recipes, flags and file names: `"vqa"`."""
    title: str
    """What people call it, within a sentence: `"visual question answering"`."""

    arguments: type[DataArguments]
    """The `data` block of its recipes."""
    load: Callable[[Any, Sequence[str] | None], TaskData]
    """Loads the data. Arguments: the block, and the labels of a model that exists already."""
    collator: Callable[[ProcessorMixin, TaskData, Any, bool], Collator]
    """Makes the collator. Arguments: the processor, the data, the block, and whether it is for training."""
    texts: Callable[[Dataset], Sequence[str]]
    """All texts of a dataset, from which a model from scratch gets its vocabulary."""
    paper_folder: str
    """The folder of its recipes on the data of the paper."""
    scenes_folder: str
    """The folder of its recipes on digit scenes."""

    head: str
    """The head of its models, a key of [`Family.heads`]."""
    activation: Literal["sigmoid", "softmax"] | None
    """How logits become the probabilities of the labels. `"sigmoid"`: each label has one of its own; `"softmax"`: the
    labels share one; None: the logits are scores, not labels."""

    metrics: Callable[[Dataset, Sequence[str]], Metrics]
    """Makes `compute_metrics` of one dataset, given the labels. It may use the columns of the dataset: the predictions
    come in the order of its rows ([`check_rows`])."""
    baselines: Callable[[TaskData], dict[str, float]]
    """What is scored on the test data without looking at images, in the unit of the main metric."""

    hub_type: str
    """The type of the task in the results of a card, as the Hub names it."""
    card_example: str
    """The Python code with which a card shows how to use the model `USER/MODEL`."""

    num_labels: int | None = None
    """How many labels the paper's data have; None: there are none."""
    metric_types: Mapping[str, MetricType] = field(default_factory=lambda: {"accuracy": PERCENT})
    """What each metric means that `metrics` gives or that a run reports: its unit and its direction."""
    model_config: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the model's config that the head needs."""
    best_metric: str = "accuracy"
    """The metric by which the best checkpoint is chosen."""
    evaluate: Callable[[EvaluationArguments, Any, Dataset, Any], dict[str, Any]] | None = None
    """Evaluates a model on a dataset, given the collator. None: `metrics` of the logits of all rows."""
    read_questions: Callable[[str, str], Dataset] | None = None
    """Reads questions without answers, for the leaderboard of the task; each row has a `question_id`. Arguments: the
    file, and the folder of the images. None: the task has no leaderboard."""
    pipeline_tag: str | None = None
    """The tag by which the Hub finds models of this task; None: it has no such tag."""
    text_label: str = "Text"
    """What the text is to the model, as the page of `pumer-hf demo` labels it."""
    page_examples: Callable[[int, int], list[tuple[PILImage.Image, str]]] | None = None
    """Makes digit scenes with texts, for `pumer-hf demo`. Arguments: how many scenes, and the cells along each side of
    one. None: the page does not take models of this task."""

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
