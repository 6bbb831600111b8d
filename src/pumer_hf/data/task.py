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
    """Three splits with the task's columns, undecoded images, and `origin`: where a row is from, for messages."""

    train: Any
    """A `Dataset`, or an `IterableDataset` if it is streamed."""
    validation: Dataset
    test: Dataset
    labels: tuple[str, ...] = ()
    """The classes in the order of the logits; none for retrieval."""
    missing_images: Mapping[str, int] = field(default_factory=dict)
    """How many rows were left out for a missing image: for each split read from files with `missing_images="skip"`."""
    unlabelled: Mapping[str, int] = field(default_factory=dict)
    """How many rows were left out because they have no label, for each split that was loaded."""
    unknown_answers: Mapping[str, int] = field(default_factory=dict)
    """How many rows have no answer among the labels, for each split of VQA. Such training rows are left out."""


class EvaluationArguments(Protocol):
    """The training arguments that an evaluation reads."""

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
"""The first lines of a card's example: they load the model and its processor."""


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
    """Loads the data. Arguments: the block, and the labels of an existing model."""
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
    """How logits become probabilities. `"sigmoid"`: each label has a probability of its own. `"softmax"`: the
    probabilities of all labels add up to 1. None: the logits are scores, and there are no labels."""

    metrics: Callable[[Dataset, Sequence[str]], Metrics]
    """Makes the `compute_metrics` of a dataset. Arguments: the dataset and the labels. It may use the columns of the
    dataset, since predictions come in the order of the rows ([`check_rows`])."""
    baselines: Callable[[TaskData], dict[str, float]]
    """Computes the scores on the test data without looking at images, in the unit of the main metric."""

    hub_type: str
    """The type of the task in the results of a card, as the Hub names it."""
    card_example: str
    """The Python code with which a card shows how to use the model `USER/MODEL`."""

    num_labels: int | None = None
    """The number of labels in the paper's data. None: the task has no labels."""
    metric_types: Mapping[str, MetricType] = field(default_factory=lambda: {"accuracy": PERCENT})
    """The unit and the direction of each metric that `metrics` gives or that a run reports."""
    model_config: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the model's config that the head needs."""
    best_metric: str = "accuracy"
    """The metric by which the best checkpoint is chosen."""
    evaluate: Callable[[EvaluationArguments, Any, Dataset, Any], dict[str, Any]] | None = None
    """Evaluates a model. Arguments: the training arguments, the model, the dataset and the collator. None: `metrics`
    are computed from the logits of all rows."""
    read_questions: Callable[[str, str], Dataset] | None = None
    """Reads questions without answers, for the leaderboard of the task; each row has a `question_id`. Arguments: the
    file, and the folder of the images. None: the task has no leaderboard."""
    pipeline_tag: str | None = None
    """The tag by which the Hub finds models of this task; None: it has no such tag."""
    text_label: str = "Text"
    """What the text is to the model, as the page of `pumer-hf demo` labels it."""
    page_examples: Callable[[int, int, str], list[tuple[PILImage.Image, str]]] | None = None
    """Makes digit scenes with texts, for `pumer-hf demo`. Arguments: the number of scenes, the cells along each side
    of one, and the setting. None: the page does not take models of this task."""

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
    """Load the splits that `args` names. The labels are not set yet.

    `test` is the validation split if there is no test split. All three are the same if `args.only` names one.

    Args:
        args: the `data` block.
        read: reads files. Arguments: the files, the folder of the images, the name of the split, and a list for the
            origins of rows that are left out because an image is missing (None: a missing image is an error).
        scenes: makes digit scenes. Arguments: the split and the number of scenes.
        columns: the columns that a Hub dataset must have, see [`load_hub_split`].
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
        **{name: splits[loaded] for name, loaded in source.items()},
        missing_images={name: missing[loaded] for name, loaded in source.items() if loaded in missing},
        unlabelled={split: len(origins) for split, origins in unlabelled.items()},
    )


def check_rows(prediction: EvalPrediction, num_rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the logits and labels of a dataset, in the order of its rows. Raises `ValueError` if the number is wrong.

    The Trainer and [`predict`] gather the rows of all processes in order, and drop rows that the Trainer repeated to
    fill the last batch. So a metric over all rows is exact; a mean of the processes' means would not be.
    """
    logits, labels = prediction.predictions, prediction.label_ids
    if len(logits) != num_rows:
        raise ValueError(f"{len(logits)} predictions for {num_rows} rows: evaluate on the dataset of the metric")
    return logits, labels
