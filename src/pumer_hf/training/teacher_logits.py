"""What the teacher says about the rows of a dataset, as columns of it, computed once."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset, Features, Image, List, Value, concatenate_datasets
from datasets.fingerprint import Hasher
from torch import Tensor, nn
from transformers import PreTrainedModel

from ..data.chat import TEACHER_LOG_PROBS, TEACHER_TOKENS
from ..models.reduced import is_decoder_model
from .items import AnswerItems, check_unreduced, is_answer
from .losses import buckets_of

Batch = dict[str, Tensor]
TOP_K = 64
"""How many tokens are kept of what a decoder says about each answer token."""
ANSWER_FEATURES = Features(
    {TEACHER_TOKENS: List(List(Value("int32"))), TEACHER_LOG_PROBS: List(List(Value("float32")))}
)


def add_teacher_logits(
    dataset: Dataset,
    teacher: PreTrainedModel,
    collator: Callable[[list[dict[str, Any]]], Batch],
    *,
    cache_dir: str | Path,
    batch_size: int = 64,
    top_k: int = TOP_K,
) -> Dataset:
    """Add what the teacher says as columns. It is computed with a progress bar and kept on disk.

    For an encoder, the column is `teacher_logits` float (C,). For a decoder, there are two columns. For each of the T
    answer tokens of a row, `teacher_token_ids` int (T, k) has the k most probable tokens, and `teacher_log_probs`
    float (T, k + 1) the logs of their probabilities and, last, of that of all other tokens together. [`ChatCollator`]
    pads them.

    A later call with the same data and the same teacher reads them from disk. Data are the same if they have the same
    rows in the same order, and if their image files ([`image_files`]) have the same size and time. The collator must
    make the same inputs from a row each time, so this does not work with random augmentation.

    Args:
        dataset: rows that `collator` understands.
        teacher: on the device to compute on; it is put into eval mode. It reduces no tokens if it is a decoder.
        collator: rows -> keyword arguments of the teacher's forward, for a decoder with labels.
        cache_dir: folder for the logits. It is made if it is missing.
        batch_size: rows per forward.
        top_k: k, at least 1; for a decoder.
    """
    if top_k < 1:
        raise ValueError(f"top_k={top_k}: must be at least 1")
    teacher.eval()
    decodes = is_decoder_model(teacher)
    if decodes:
        check_unreduced(teacher)

    def columns_of(rows: dict[str, list]) -> dict[str, list]:
        batch = collator([dict(zip(rows, values, strict=True)) for values in zip(*rows.values(), strict=True)])
        return answer_columns(teacher, batch, top_k) if decodes else class_columns(teacher, batch)

    fingerprint = fingerprint_of(dataset, teacher, collator([dataset[0]]), [top_k] if decodes else [])
    Path(cache_dir).mkdir(parents=True, exist_ok=True)
    column = dataset.map(
        columns_of,
        batched=True,
        batch_size=batch_size,
        remove_columns=dataset.column_names,
        features=ANSWER_FEATURES if decodes else None,
        cache_file_name=str(Path(cache_dir) / f"teacher-logits-{fingerprint}.arrow"),
        new_fingerprint=fingerprint,
        load_from_cache_file=True,
        desc="Teacher logits",
    )
    return concatenate_datasets([dataset, column], axis=1)


def fingerprint_of(dataset: Dataset, teacher: PreTrainedModel, sample: Batch, options: list[Any]) -> str:
    """Return a hash of all that what the teacher says depends on.

    Args:
        dataset: the rows.
        teacher: the teacher.
        sample: what the collator makes of the first row.
        options: what else it depends on.
    """
    data = dataset._fingerprint, image_files(dataset)
    arrays = {name: value.numpy() for name, value in sample.items()}
    return Hasher.hash((data, teacher.config.to_json_string(), weights_hash(teacher), arrays, *options))


@torch.no_grad()
def class_columns(teacher: PreTrainedModel, batch: Batch) -> dict[str, Any]:
    """Return the column of an encoder for a batch. Labels in it are not used."""
    logits = teacher(**{name: value.to(teacher.device) for name, value in batch.items() if name != "labels"}).logits
    return {"teacher_logits": logits.float().cpu().numpy()}


@torch.no_grad()
def answer_columns(teacher: PreTrainedModel, batch: Batch, top_k: int) -> dict[str, Any]:
    """Return the columns of a decoder for a batch.

    Args:
        teacher: the decoder, in eval mode. It reduces no tokens.
        batch: a batch with labels.
        top_k: how many tokens are kept for each answer token.
    """
    items = AnswerItems()
    items.count(batch)  # it says what is wrong with the labels
    inputs = {
        name: value.to(teacher.device, teacher.dtype if value.is_floating_point() else None)
        for name, value in batch.items()
    }
    found = buckets_of(items.teacher_logits(teacher, inputs), top_k)
    ends = is_answer(batch["labels"]).sum(dim=1).cumsum(0).numpy()[:-1]
    return {
        TEACHER_TOKENS: np.split(found.tokens.cpu().numpy(), ends),
        TEACHER_LOG_PROBS: np.split(found.log_probs.cpu().numpy(), ends),
    }


def weights_hash(model: nn.Module) -> str:
    """Return a hash of the weights of a model. They are read one after the other, as they may fill the memory."""
    known = hashlib.blake2b(digest_size=16)
    for name, value in model.state_dict().items():
        known.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        known.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return known.hexdigest()


def image_files(dataset: Dataset) -> list[tuple[str, int, int]]:
    """Return path, size in bytes and time of change in ns of each file that a column of images names.

    For an image in an archive (`zip://a.png::train.zip`), the file is the archive. Images whose bytes are in the table
    (also as a `data:` URL) are left out, and so are images on another machine.
    """
    paths: set[str] = set()
    for name, feature in dataset.features.items():
        if isinstance(feature, Image):
            column = dataset.data.column(name)  # has all rows, also those that a selection leaves out
            parts = {field.name: part for field, part in zip(column.type, column.flatten(), strict=True)}
            named = parts["path"].filter(parts["bytes"].is_null()).unique().to_pylist()
            paths.update(path.split("::")[-1] for path in named if path is not None)
    local = sorted(path for path in paths if "://" not in path and not path.startswith("data:"))
    status = [(path, Path(path).stat()) for path in local]
    return [(path, found.st_size, found.st_mtime_ns) for path, found in status]
