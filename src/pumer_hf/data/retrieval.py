"""Retrieval of images and captions (Flickr30k): which of several captions belongs to an image?"""

import hashlib
import json
import os
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from datasets import Dataset
from torch import Generator, Tensor
from transformers import EvalPrediction, ProcessorMixin

from ..images import DataError
from ..metrics.retrieval import RECALLS, hit_chances, normalize_caption
from ..results import PERCENT
from .arguments import SPLITS, DataArguments
from .collator import Collator
from .columns import captions_of, image_of
from .files import existing_files, image_in, json_field, json_object, read_objects, to_dataset
from .scenes.statements import CAPTION_FEATURES as FEATURES
from .scenes.statements import caption_scenes
from .scoring import evaluate_retrieval
from .task import LOADED_EXAMPLE, Metrics, Task, TaskData, check_rows, load_splits

KARPATHY_SPLITS = {"train": ("train", "restval"), "validation": ("val",), "test": ("test",)}


@dataclass
class RetrievalDataArguments(DataArguments):
    """The `data` block of a retrieval recipe. Files are Karpathy's `dataset_flickr30k.json`, the same for all splits,
    or .jsonl with `image` and `captions` (a list, or one string).

    Columns of a Hub dataset: `image` and `captions` ([`captions_of`]). Rows with the same image become one row.
    """

    num_negatives: int = field(
        default=15,
        metadata={"help": "Number of captions of other images, drawn at random, to rank the right one with."},
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_negatives < 1:
            raise ValueError(f"data.num_negatives={self.num_negatives}: must be at least 1")
        if self.streaming:
            raise ValueError("data.streaming: negatives are drawn from all captions, so retrieval cannot stream")


def load_retrieval(args: RetrievalDataArguments, labels: Sequence[str] | None = None) -> TaskData:
    """Load the three splits, with the columns `image` and `captions` ([`group_by_image`]).

    The training split has a row for each caption of an image, the other splits have a row per image.
    """
    scene = {"grid_size": args.grid_size, "num_digits": args.num_digits, "seed": args.scene_seed}
    data = load_splits(
        args,
        read=read_captions,
        scenes=lambda split, number: caption_scenes(split, number, **scene),
        columns={"captions": captions_of, "image": image_of},
    )
    data = replace(data, **{split: group_by_image(getattr(data, split)) for split in SPLITS})
    for split in SPLITS:
        number = len(getattr(data, split))
        if number < 2:
            raise ValueError(f"the {split} data hold {number} images: retrieval needs at least two")
    counts = [len(captions) for captions in data.train["captions"]]
    train = data.train.select([row for row, count in enumerate(counts) for _ in range(count)])
    return replace(data, train=train)


def group_by_image(dataset: Dataset) -> Dataset:
    """Return one row per image, in the order of first rows. Its `captions` are those of all rows with the image.

    Two images are the same if they are the same file, or, if the dataset holds bytes, if their bytes are equal.
    """
    grouped_captions: dict[str, list[str]] = {}
    first: list[int] = []
    for row, (image, captions) in enumerate(zip(dataset["image"], dataset["captions"], strict=True)):
        name = _image_name(image)
        if name not in grouped_captions:
            grouped_captions[name] = []
            first.append(row)
        grouped_captions[name].extend(captions)
    if len(first) == len(dataset):
        return dataset
    grouped = dataset.select(first).remove_columns("captions")
    return grouped.add_column("captions", list(grouped_captions.values()))


def _image_name(image: dict[str, Any]) -> str:
    """A name that identifies an image."""
    if image["bytes"] is not None:
        return hashlib.sha256(image["bytes"]).hexdigest()
    return os.path.realpath(image["path"])


def read_captions(files: list[str], image_dir: str | None, split: str, skipped: list[str] | None = None) -> Dataset:
    """Read a split of Karpathy's file (one .json), or a .jsonl file.

    A line of a .jsonl file has `image` and `captions` (a list, or one string). Several lines may have the same image.
    Images are in `image_dir` (default: the folder of the file). `skipped`: see [`to_dataset`].
    """
    folder = Path(image_dir) if image_dir else Path(files[0]).parent
    rows = _karpathy(files[0], folder, split) if files[0].endswith(".json") else _lines(files, folder)
    return to_dataset(rows, FEATURES, f"{files[0]}: the file holds no image of the {split} split", skipped)


def _karpathy(file: str, folder: Path, split: str) -> Iterator[dict[str, Any]]:
    (path,) = existing_files([file])
    content = json_object(path.read_bytes(), file)
    for number, image in enumerate(json_field(content, "images", list, file)):
        origin = f"{file}, image {number}"
        if json_field(image, "split", str, origin) in KARPATHY_SPLITS[split]:
            sentences = json_field(image, "sentences", list, origin)
            captions = [json_field(sentence, "raw", str, origin) for sentence in sentences]
            yield _row(image, "filename", captions, folder, origin)


def _lines(files: list[str], folder: Path) -> Iterator[dict[str, Any]]:
    for row, origin in read_objects(files):
        given = row.get("captions")
        captions = [given] if isinstance(given, str) else json_field(row, "captions", list, origin)
        yield _row(row, "image", captions, folder, origin)


def _row(row: dict[str, Any], image: str, captions: list[Any], folder: Path, origin: str) -> dict[str, Any]:
    if not captions or not all(isinstance(caption, str) and caption.strip() for caption in captions):
        raise ValueError(f"{origin}: give at least one caption, each a string with text, got {json.dumps(captions)}")
    name = json_field(row, image, str, origin)
    return {"image": image_in(folder, name), "captions": captions, "origin": origin}


@dataclass
class RetrievalCollator(Collator):
    """The collator of images. An image gets one of its captions, then `num_negatives` captions of other images.

    A caption that several images have ([`normalize_caption`]) is a negative of none of them.

    The tensors of the tokenizer are long (B, 1 + num_negatives, max_text_length). The `labels`, long (B,), are 0; the
    model scores each candidate by itself, so the order tells it nothing. In training, torch's generator draws the
    captions anew each time. In evaluation, an image gets its first caption, and its negatives depend on the row alone.
    Without negatives, each image has one caption, and there are no labels.
    """

    texts_match: ClassVar[bool] = False

    captions: Sequence[Sequence[str]] = ()
    """The captions of each image that negatives may come from."""
    num_negatives: int = 15
    training: bool = False

    def __post_init__(self) -> None:
        texts = {normalize_caption(caption): caption for group in self.captions for caption in group}
        self.pool = sorted(texts.items(), key=lambda item: item[1])
        self.known = set(texts)

    @property
    def is_random(self) -> bool:
        return self.training or super().is_random

    def for_benchmark(self) -> Collator:
        return replace(self, num_negatives=0, training=False)

    def texts(self, row: dict[str, Any]) -> str | list[str]:
        captions = row["captions"]
        if not self.num_negatives:
            return captions[0]
        generator = None if self.training else Generator().manual_seed(zlib.crc32(row["origin"].encode()))
        index = int(torch.randint(len(captions), (), generator=generator)) if self.training else 0
        return [captions[index], *self.negatives({normalize_caption(caption) for caption in captions}, generator)]

    def negatives(self, positives: set[str], generator: Generator | None) -> list[str]:
        """Draw captions of other images, all different if there are enough.

        `positives` are the normalised captions of the image itself.
        """
        others = len(self.pool) - len(self.known & positives)
        if not others:
            raise DataError("data: all images have the same captions, so there are no negatives")
        drawn: list[str] = []
        while len(drawn) < self.num_negatives:
            name, caption = self.pool[int(torch.randint(len(self.pool), (), generator=generator))]
            if name not in positives and (caption not in drawn or len(drawn) >= others):
                drawn.append(caption)
        return drawn

    def labels_of(self, rows: Sequence[dict[str, Any]]) -> Tensor | None:
        return torch.zeros(len(rows), dtype=torch.long) if self.num_negatives else None


def ranking_metrics(dataset: Dataset, labels: Sequence[str]) -> Metrics:
    """Return the function that computes `accuracy`: percent of images whose own caption scores above all negatives.

    Equal scores count as if they were in random order: a caption that ties with one negative counts as half right.
    """

    def compute(prediction: EvalPrediction) -> dict[str, float]:
        scores, _ = check_rows(prediction, len(dataset))
        is_own = np.zeros(scores.shape, dtype=bool)
        is_own[:, 0] = True
        return {"accuracy": 100 * float(hit_chances(scores, is_own, 1).mean())}

    return compute


def _collator(
    processor: ProcessorMixin, data: TaskData, args: RetrievalDataArguments, training: bool
) -> RetrievalCollator:
    dataset = data.train if training else data.validation
    return RetrievalCollator(
        args.encoder(processor),
        rand_augment=args.rand_augment and training,
        captions=dataset["captions"][:],
        num_negatives=args.num_negatives,
        training=training,
    )


def _texts(dataset: Dataset) -> list[str]:
    return [caption for captions in dataset["captions"] for caption in captions]


RETRIEVAL = Task(
    name="retrieval",
    title="image-text retrieval",
    arguments=RetrievalDataArguments,
    load=load_retrieval,
    collator=_collator,
    texts=_texts,
    paper_folder="retrieval",
    scenes_folder="digit_scenes_retrieval",
    head="retrieval",
    activation=None,
    metrics=ranking_metrics,
    baselines=lambda data: {},
    metric_types=dict.fromkeys(["accuracy", *RECALLS], PERCENT),
    evaluate=evaluate_retrieval,
    hub_type="image-text-retrieval",
    card_example=LOADED_EXAMPLE
    + 'for caption in ("a dog is running", "two people at a table"):\n'
    + '    inputs = encode_example(model, processor, Image.open("picture.png"), caption)\n'
    + "    print(caption, model(**inputs).logits.item())  # the higher, the better the caption fits the picture",
)
