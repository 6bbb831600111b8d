"""The record of what the stages of a run were made from. It is written when a stage begins, and compared on a resume.

The record is `stages.json` in the output folder of a run. If it is missing, or has no entry for a stage, a resumed run
compares the labels and the vocabulary of the saved model.

Some things may change between start and resume: the training arguments (number of steps, batch size, number of
processes, learning rate, logging, reports, saving, the Hub), where the data are ([`PLACES`]), the pictures themselves,
and the test data.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from datasets import Dataset, Image
from transformers import AutoProcessor, PreTrainedConfig, ProcessorMixin
from transformers.utils import logging

from ..data.task import TaskData
from ..encoding import STAGES_NAME
from ..folders import write_json
from ..hub.trainer import training_facts
from ..reading import read_object
from ..reducers import parse_reduction
from .recipe import Recipe, RecipeTrainingArguments
from .stages import is_complete, last_complete_checkpoint, resume_point

logger = logging.get_logger(__name__)

PLACES = (
    *("dataset", "dataset_config", "dataset_revision", "columns", "split_column", "streaming"),
    *("train_split", "validation_split", "test_split", "train_file", "validation_file", "test_file", "image_dir"),
    "missing_images",
)
"""Fields of the `data` block that say where the rows are. They may change, as the rows themselves are compared."""
MAX_NAMED = 5
"""The number of differences that an error names."""


def made_from(recipe: Recipe, data: TaskData, processor: ProcessorMixin) -> dict[str, Any]:
    """Return what the student of a recipe is made from, in plain JSON types."""
    model = asdict(recipe.model)
    for name in ("checkpoint", "teacher"):
        model[name] = model[name] and weights_of(model[name])
    record = {
        "labels": list(data.labels),
        "model": model,
        "reduction": recipe.schedule and recipe.schedule.to_dict(),
        "data": {name: value for name, value in asdict(recipe.data).items() if name not in PLACES},
        "train": _rows(data.train, recipe),
        "validation": _rows(data.validation, recipe),
        "vocabulary": _vocabulary(processor),
    }
    return json.loads(json.dumps(record))


def without_student(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the record of a teacher, without the reduction and the size of the student's images."""
    model = {name: value for name, value in record["model"].items() if name != "image_size"}
    return {**record, "model": model, "reduction": None}


def weights_of(source: str) -> str:
    """Return what identifies the weights of a model: a hash of the files in a folder, or an id on the Hub."""
    if not Path(source).is_dir():
        return source
    digest = hashlib.sha256()
    for pattern in ("model*.safetensors", "pytorch_model*.bin"):
        for path in sorted(Path(source).glob(pattern)):
            with path.open("rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
    return f"weights {digest.hexdigest()[:12]}"


def stage_facts(args: RecipeTrainingArguments) -> dict[str, Any]:
    """Return the [`training_facts`] of a stage. A student that is not trained has only its number of steps, 0."""
    return {"max_steps": 0} if args.max_steps == 0 else training_facts(args)


def begin_stage(args: RecipeTrainingArguments, record: Mapping[str, Any]) -> None:
    """Write the record of a new stage. If the stage is resumed, compare its record with the one in the folder.

    Args:
        args: the arguments of the stage.
        record: what the stage would be made from now ([`made_from`]).

    Raises:
        ValueError: the stage in the folder was made from other data or another model, or it cannot be resumed.
    """
    folder = Path(args.output_dir)
    path = folder.parent / STAGES_NAME
    known = _known(path)
    now = {**record, "training": json.loads(json.dumps(stage_facts(args)))}
    saved = folder if is_complete(folder) else last_complete_checkpoint(folder)
    if saved is None or not args.resume:
        if args.should_save:
            folder.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, {**known, folder.name: now})
        return
    point = None if saved == folder else resume_point(args)
    ended = point is None or point.ended
    then = known.get(folder.name)
    if then is None:
        logger.warning_once(
            f"{path} does not say what this stage was made from, as in older versions: only the labels and the "
            "vocabulary are compared"
        )
        then = _saved(saved, now)
        now = {name: now[name] for name in then}  # this leaves the training arguments out
    changed = differences(_without_training(then), _without_training(now))
    if changed:
        teacher = f", with --teacher {folder}" if folder.name == "teacher" and saved == folder else ""
        raise ValueError(
            f"{folder} was made from other data or flags than --resume would use: {_listed(changed)}; give the data "
            f"and flags that it was made with, or begin anew in another --output_dir{teacher}"
        )
    changed = differences({"training": then.get("training")}, {"training": now.get("training")})
    if changed and ended:
        logger.warning("%s has trained to its end, so it stays as it is: %s", folder, _listed(changed))
    elif changed:
        logger.warning("%s goes on with other training arguments: %s", folder, _listed(changed))
        if args.should_save:
            write_json(path, {**known, folder.name: now})


def recorded(folder: str | Path, block: str) -> dict[str, Any] | None:
    """Return a block of the record of the stage in a folder, such as `"training"`; None if there is no record."""
    return _known(Path(folder).parent / STAGES_NAME).get(Path(folder).name, {}).get(block)


def _known(path: Path) -> dict[str, Any]:
    """Return the entries of a record, by stage; {} if there is no record. Old forms of schedules become new ones."""
    stages = read_object(path) if path.is_file() else {}
    for stage in stages.values():
        schedule = parse_reduction(stage.get("reduction"))
        if schedule is not None:
            stage["reduction"] = schedule.to_dict()
    return stages


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return a text for each difference between two records, with both values. A missing field counts as null."""
    if isinstance(then.get("labels"), list) and then["labels"] != now["labels"]:
        named = [_label_difference(then["labels"], now["labels"])]
    else:
        named = []
    left_out = {"labels": None}
    if ("streamed" in then.get("train", {})) != ("streamed" in now.get("train", {})):
        left_out["train"] = None  # rows cannot be compared with the place of a stream
    before, after = (dict(_flat({**record, **left_out})) for record in (then, now))
    names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    counted = {f"{name.rpartition('.')[0]}.hash" for name in names if not name.endswith(".hash")}
    names = [name for name in names if name not in counted]  # a changed number of rows says more than their hash
    return named + [f"{name} was {_short(before.get(name))} and is {_short(after.get(name))}" for name in names]


def _label_difference(then: Sequence[str], now: Sequence[str]) -> str:
    index = next((i for i, (before, after) in enumerate(zip(then, now, strict=False)) if before != after), None)
    if index is None:
        return f"the labels were {len(then)} and are {len(now)}"
    first = f"label {index} was {then[index]!r} and is {now[index]!r}"
    return first if len(then) == len(now) else f"{first}, of {len(then)} labels then and {len(now)} now"


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the fields of nested dicts with their full names: `("model.config.hidden_size", 16)`."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:80]}..."


def _listed(changed: Sequence[str]) -> str:
    more = f", and {len(changed) - MAX_NAMED} more" if len(changed) > MAX_NAMED else ""
    return ", ".join(changed[:MAX_NAMED]) + more


def _without_training(record: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name != "training"}


def _saved(folder: Path, now: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a saved model was made from, as far as it tells: its labels, if any, and its vocabulary."""
    names = PreTrainedConfig.get_config_dict(str(folder))[0].get("id2label", {})
    labels = [names[index] for index in sorted(names, key=int)] if now["labels"] else []
    return {"labels": labels, "vocabulary": _vocabulary(AutoProcessor.from_pretrained(folder))}


def _vocabulary(processor: Any) -> dict[str, Any]:
    """Return the number of tokens, and a hash of them."""
    tokens = sorted(processor.tokenizer.get_vocab().items())
    return {"tokens": len(tokens), "hash": _hash([json.dumps(tokens)])}


def _rows(dataset: Any, recipe: Recipe) -> dict[str, Any]:
    """Return the number of rows and a hash of the rows in order, without pictures. For a stream, return its place."""
    if not isinstance(dataset, Dataset):
        args = recipe.data
        place = os.path.realpath(args.dataset) if Path(args.dataset).is_dir() else args.dataset
        fields = ("dataset_config", "dataset_revision", "train_split", "columns")
        return {"streamed": place, **{name: getattr(args, name) for name in fields}}
    names = [
        name
        for name, feature in dataset.features.items()
        if name != "origin" and not isinstance(feature, Image)  # `origin` names the file, which may have moved
    ]
    batches = dataset.select_columns(names).iter(batch_size=1000)
    return {"rows": len(dataset), "hash": _hash(json.dumps(batch, sort_keys=True, default=str) for batch in batches)}


def _hash(texts: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for text in texts:
        digest.update(text.encode())
    return digest.hexdigest()[:12]
