"""The teacher's logits as a column of the dataset, computed once."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, Image, concatenate_datasets
from datasets.fingerprint import Hasher
from torch import Tensor
from transformers import PreTrainedModel


def add_teacher_logits(
    dataset: Dataset,
    teacher: PreTrainedModel,
    collator: Callable[[list[dict[str, Any]]], dict[str, Tensor]],
    *,
    cache_dir: str | Path,
    batch_size: int = 64,
) -> Dataset:
    """Add the column `teacher_logits` float (C,). The logits are computed with a progress bar and kept on disk.

    A later call with the same data and the same teacher reads them from disk. Data are the same if they have the same
    rows in the same order, and if their image files ([`image_files`]) have the same size and time. The collator must
    make the same inputs from a row each time, so this does not work with random augmentation.

    Args:
        dataset: rows that `collator` understands.
        teacher: on the device to compute on; it is put into eval mode.
        collator: rows -> keyword arguments of the teacher's forward.
        cache_dir: folder for the logits. It is made if it is missing.
        batch_size: rows per forward.
    """
    teacher.eval()

    def logits_of(rows: dict[str, list]) -> dict[str, list]:
        batch = collator([dict(zip(rows, values, strict=True)) for values in zip(*rows.values(), strict=True)])
        batch.pop("labels", None)
        with torch.no_grad():
            logits = teacher(**{name: value.to(teacher.device) for name, value in batch.items()}).logits
        return {"teacher_logits": logits.float().cpu().numpy()}

    weights = {name: value.cpu().float().numpy() for name, value in teacher.state_dict().items()}
    sample = {name: value.numpy() for name, value in collator([dataset[0]]).items()}
    data = dataset._fingerprint, image_files(dataset)
    fingerprint = Hasher.hash((data, teacher.config.to_json_string(), weights, sample))
    Path(cache_dir).mkdir(parents=True, exist_ok=True)
    column = dataset.map(
        logits_of,
        batched=True,
        batch_size=batch_size,
        remove_columns=dataset.column_names,
        cache_file_name=str(Path(cache_dir) / f"teacher-logits-{fingerprint}.arrow"),
        new_fingerprint=fingerprint,
        load_from_cache_file=True,
        desc="Teacher logits",
    )
    return concatenate_datasets([dataset, column], axis=1)


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
