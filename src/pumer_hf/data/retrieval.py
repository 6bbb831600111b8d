"""Retrieval of images and captions (Flickr30k): which of several captions is an image's own?"""

import json
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import Generator, Tensor
from transformers import EvalPrediction, ProcessorMixin

from .arguments import SPLITS, DataArguments
from .collator import Collator
from .columns import captions_of, image_of
from .files import existing_files, image_in, json_field, json_object, read_objects, to_dataset
from .scene_statements import CAPTION_FEATURES as FEATURES
from .scene_statements import caption_scenes
from .task import Metrics, Task, TaskData, check_rows, load_splits

KARPATHY_SPLITS = {"train": ("train", "restval"), "validation": ("val",), "test": ("test",)}


@dataclass
class RetrievalDataArguments(DataArguments):
    """The `data` block of a retrieval recipe. Files: Karpathy's `dataset_flickr30k.json`, the same for all splits, or
    .jsonl with `image` and `captions`.

    Columns of a Hub dataset: `image` and `captions` ([`captions_of`]).
    """

    num_negatives: int = field(
        default=15, metadata={"help": "Captions of other images, drawn at random, that the right one is ranked among."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_negatives < 1:
            raise ValueError(f"data.num_negatives={self.num_negatives}: must be at least 1")
        if self.streaming:
            raise ValueError("data.streaming: negatives are drawn from all captions, so retrieval cannot stream")


def load_retrieval(args: RetrievalDataArguments, labels: Sequence[str] | None = None) -> TaskData:
    """Load the three splits, with the columns `image` and `captions`. Training has a row for each caption of an image,
    the others a row per image.
    """
    scene = {"grid_size": args.grid_size, "num_digits": args.num_digits, "seed": args.scene_seed}
    data = load_splits(
        args,
        read=read_captions,
        scenes=lambda split, number: caption_scenes(split, number, **scene),
        columns={"captions": captions_of, "image": image_of},
    )
    for split in SPLITS:
        number = len(getattr(data, split))
        if number < 2:
            raise ValueError(f"the {split} data hold {number} images: retrieval needs at least two")
    counts = [len(captions) for captions in data.train["captions"]]
    train = data.train.select([row for row, count in enumerate(counts) for _ in range(count)])
    return replace(data, train=train)


def read_captions(files: list[str], image_dir: str | None, split: str, skipped: list[str] | None = None) -> Dataset:
    """Read a split of Karpathy's file (one .json), or a .jsonl file with `image` and `captions` in each line.

    Images are in `image_dir` (default: the folder of the file). `skipped`: as of [`to_dataset`].
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
        yield _row(row, "image", json_field(row, "captions", list, origin), folder, origin)


def _row(row: dict[str, Any], image: str, captions: list[Any], folder: Path, origin: str) -> dict[str, Any]:
    if not captions or not all(isinstance(caption, str) for caption in captions):
        raise ValueError(f"{origin}: give at least one caption, each a string, got {json.dumps(captions)}")
    name = json_field(row, image, str, origin)
    return {"image": image_in(folder, name), "captions": captions, "origin": origin}


@dataclass
class RetrievalCollator(Collator):
    """An image -> one of its captions and `num_negatives` captions of other images, in this order.

    `input_ids` and `attention_mask` are long (B, 1 + num_negatives, max_text_length), `labels` long (B,) are 0: the
    model scores each candidate by itself, so that their order tells it nothing. In training the captions are drawn
    anew each time, by torch's generator. In evaluation they are the first caption of the image, and negatives that
    depend on the row alone. Without negatives there are plain pairs, and no labels.
    """

    captions: Sequence[Sequence[str]] = ()
    """The captions of each image that negatives may come from."""
    num_negatives: int = 15
    training: bool = False

    def __post_init__(self) -> None:
        self.known = {caption for own in self.captions for caption in own}
        self.pool = sorted(self.known)

    @property
    def is_random(self) -> bool:
        return self.training or super().is_random

    def for_benchmark(self) -> Collator:
        return replace(self, num_negatives=0, training=False)

    def texts(self, row: dict[str, Any]) -> str | list[str]:
        own = row["captions"]
        if not self.num_negatives:
            return own[0]
        generator = None if self.training else Generator().manual_seed(zlib.crc32(row["origin"].encode()))
        positive = own[int(torch.randint(len(own), (), generator=generator))] if self.training else own[0]
        return [positive, *self.negatives(set(own), generator)]

    def negatives(self, own: set[str], generator: Generator | None) -> list[str]:
        """Captions of other images, all different unless there are too few; `own` are those of the image."""
        others = len(self.pool) - len(self.known & own)
        if not others:
            raise ValueError("data: all images have the same captions, so there are no negatives")
        drawn: list[str] = []
        while len(drawn) < self.num_negatives:
            caption = self.pool[int(torch.randint(len(self.pool), (), generator=generator))]
            if caption not in own and (caption not in drawn or len(drawn) >= others):
                drawn.append(caption)
        return drawn

    def labels_of(self, rows: Sequence[dict[str, Any]]) -> Tensor | None:
        return torch.zeros(len(rows), dtype=torch.long) if self.num_negatives else None

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        batch = super().__call__(rows)
        batch.pop("token_type_ids", None)  # all 0, and the head does not take them
        return batch


def ranking_metrics(dataset: Dataset, labels: Sequence[str]) -> Metrics:
    """`accuracy` in percent: images whose own caption scores higher than all the negatives. A tie is wrong."""

    def compute(prediction: EvalPrediction) -> dict[str, float]:
        scores, _ = check_rows(prediction, len(dataset))
        return {"accuracy": 100 * float((scores[:, 0] > scores[:, 1:].max(axis=1)).mean())}

    return compute


def _collator(
    processor: ProcessorMixin, data: TaskData, args: RetrievalDataArguments, training: bool
) -> RetrievalCollator:
    dataset = data.train if training else data.validation
    return RetrievalCollator(
        processor,
        (),
        args.max_text_length,
        args.keep_aspect_ratio,
        args.rand_augment and training,
        captions=dataset["captions"][:],
        num_negatives=args.num_negatives,
        training=training,
    )


def _texts(dataset: Dataset) -> list[str]:
    return [caption for captions in dataset["captions"] for caption in captions]


RETRIEVAL = Task(
    name="retrieval",
    head="ForImageAndTextRetrieval",
    arguments=RetrievalDataArguments,
    load=load_retrieval,
    collator=_collator,
    metrics=ranking_metrics,
    texts=_texts,
    baselines=lambda train, test: {},
)
