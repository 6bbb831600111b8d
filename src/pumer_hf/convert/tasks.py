"""Tasks: their names, which one a checkpoint is for, its head and its labels."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from .keys import CLASSIFIER, Renamed
from .sources import Checkpoint, read_json

TASKS = ("pretrain", "vqa", "nlvr2", "ve", "retrieval")
ALIASES = {
    "vqav2": "vqa",
    "vqa2": "vqa",
    "snli_ve": "ve",
    "snli": "ve",
    "irtr": "retrieval",
    "flickr30k": "retrieval",
    "coco": "retrieval",
}
ARCHITECTURES = {
    "ForQuestionAnswering": "vqa",
    "ForImagesAndTextClassification": "nlvr2",
    "ForVisualEntailment": "ve",
    "ForImageAndTextRetrieval": "retrieval",
}
LABEL_FILES = ("vqa2_label2ans.json", "vilt_label2ans.json", "label2ans.json")
# Both in METER's and in PuMer's data preparation.
LABELS = {"nlvr2": ["False", "True"], "ve": ["contradiction", "neutral", "entailment"]}


def parse_task(task: str | None) -> str | None:
    """The task that a name or an alias means."""
    if task is None:
        return None
    name = ALIASES.get(task.lower(), task.lower())
    if name not in TASKS:
        raise ValueError(f"task={task!r}: choose one of {', '.join(TASKS)}")
    return name


def choose_task(asked: str | None, renamed: Renamed, config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> str:
    """The task to convert for: the one `asked` for, else that of the head. Puts that head into `renamed.heads`.

    Args:
        asked: name of a task or None.
        renamed: the checkpoint. A pretrained one gets the head of retrieval if that is asked for: the matching row of
            its image-text matching head, with which both originals begin to train retrieval.
        config: of the checkpoint.
        weights: under their names in the file.
    """
    if CLASSIFIER in renamed.heads:
        name_stock_head(asked, renamed, config)
    matching = {
        name: weights[f"itm_score.fc.{name}"] for name in ("weight", "bias") if f"itm_score.fc.{name}" in weights
    }
    if asked == "retrieval" and asked not in renamed.heads and matching:
        renamed.heads[asked] = {f"rank_output.{name}": value[1:].clone() for name, value in matching.items()}
    found = ", ".join(renamed.heads) or "none"
    pretrained = not renamed.heads
    if asked == "pretrain" or (pretrained and asked in (None, "nlvr2")):
        return asked or "pretrain"
    if asked is not None:
        if asked not in renamed.heads:
            raise ValueError(f"task={asked!r}: the checkpoint has no head for it; the heads it has: {found}")
        return asked
    if len(renamed.heads) > 1:
        raise ValueError(f"the checkpoint has several heads ({found}): choose one with task=")
    return next(iter(renamed.heads))


def name_stock_head(asked: str | None, renamed: Renamed, config: Mapping[str, Any]) -> None:
    """File the classifier of a stock ViLT under its task, which its config tells, or how wide it is."""
    head = renamed.heads.pop(CLASSIFIER)
    architectures = config.get("architectures") or [""]
    known = [task for ending, task in ARCHITECTURES.items() if architectures[0].endswith(ending)]
    first = head.get(f"{CLASSIFIER}.0.weight")
    pooled = renamed.shape("pooler.dense.weight")[0]
    images = 1 if first is None else first.shape[-1] // pooled
    task = known[0] if known else "vqa" if images == 1 else "nlvr2"
    if asked == "ve" and task == "vqa":
        task = asked
    renamed.heads[task] = head


def label_names(task: str, head: Mapping[str, Tensor], checkpoint: Checkpoint, is_stock: bool) -> list[str] | None:
    """The names of the labels in the order of the logits; None for a model without labels.

    The original and released checkpoints do not hold the answers of VQA. They are read from a file beside the weights
    ([`LABEL_FILES`]: a list, or a dict from indices), or else named `LABEL_0`, `LABEL_1`, ...
    """
    sizes = [value.shape[0] for name, value in head.items() if name.startswith(f"{CLASSIFIER}.3.")]
    if not sizes:
        return None
    size = sizes[0]
    if is_stock and len(checkpoint.config.get("id2label") or ()) == size:
        return ordered_labels(checkpoint.config["id2label"])
    if task == "vqa":
        for name in LABEL_FILES:
            path = checkpoint.folder / name
            if path.is_file():
                labels = ordered_labels(read_json(path))
                if len(labels) != size:
                    raise ValueError(f"{path} has {len(labels)} answers, but the checkpoint {size}: move it away?")
                return labels
    known = LABELS.get(task, [])
    return known if len(known) == size else [f"LABEL_{index}" for index in range(size)]


def ordered_labels(labels: Any) -> list[str]:
    """Labels as a list, from a list or from a dict from indices, which are strings in JSON."""
    if isinstance(labels, list):
        return [str(label) for label in labels]
    if not isinstance(labels, dict):
        raise ValueError(f"labels are a list, or a dict from indices, not {type(labels).__name__}")
    by_index = {int(index): str(label) for index, label in labels.items()}
    if sorted(by_index) != list(range(len(by_index))):
        raise ValueError(f"labels have the indices {sorted(by_index)[:5]}...: they should count from 0 without gaps")
    return [by_index[index] for index in range(len(by_index))]
