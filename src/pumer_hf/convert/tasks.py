"""The task of a checkpoint: its name, its head and its labels."""

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from ..models.families import FAMILIES, task_name, task_of
from ..reading import read_json
from .keys import CLASSIFIER, Renamed
from .sources import Checkpoint

PRETRAIN = "pretrain"
"""The name to give for the model without a head, in place of a task."""
LABEL_FILES = ("vqa2_label2ans.json", "vilt_label2ans.json", "label2ans.json", "vqa_dict.json")
"""The files that hold the answers of VQA, by the names that PuMer and ViLT (`vqa_dict.json`) give them."""
# METER and PuMer prepare their data with these labels.
LABELS = {"nlvr2": ["False", "True"], "snli_ve": ["contradiction", "neutral", "entailment"]}


def parse_task(task: str | None) -> str | None:
    """Return the task that a name or an old name means."""
    if task is None:
        return None
    known = dict.fromkeys([PRETRAIN, *(head for family in FAMILIES.values() for head in family.heads)])
    if task_name(task) not in known:
        raise ValueError(f"task={task!r}: choose one of {', '.join(known)}")
    return task_name(task)


def choose_task(asked: str | None, renamed: Renamed, config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> str:
    """Return the task to convert for: the one that is `asked` for, else that of the head.

    The head of the task is put into `renamed.heads`.

    Args:
        asked: the name of a task, or None.
        renamed: the checkpoint. A pretrained one gets the head of retrieval if that is asked for. It is the row for a
            match in its image-text matching head. Original ViLT and METER begin to train retrieval with it too.
        config: the config of the checkpoint.
        weights: the weights under their names in the file.
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
    if asked == PRETRAIN or (pretrained and asked in (None, "nlvr2")):
        return asked or PRETRAIN
    if asked is not None:
        if asked not in renamed.heads:
            raise ValueError(f"task={asked!r}: the checkpoint has no head for it; the heads it has: {found}")
        return asked
    if len(renamed.heads) > 1:
        raise ValueError(f"the checkpoint has several heads ({found}): choose one with task=")
    return next(iter(renamed.heads))


def name_stock_head(asked: str | None, renamed: Renamed, config: Mapping[str, Any]) -> None:
    """Put the classifier of a stock ViLT under its task. The config says the task, or else the classifier's width."""
    head = renamed.heads.pop(CLASSIFIER)
    architectures = config.get("architectures") or [""]
    known = task_of(architectures[0])
    first = head.get(f"{CLASSIFIER}.0.weight")
    pooled = renamed.shape("pooler.dense.weight")[0]
    images = 1 if first is None else first.shape[-1] // pooled
    task = known or ("vqa" if images == 1 else "nlvr2")
    if asked == "snli_ve" and task == "vqa":
        task = asked
    renamed.heads[task] = head


def label_names(
    task: str, renamed: Renamed, checkpoint: Checkpoint, given: Any = None, fill: bool = False
) -> list[str] | None:
    """Return the names of the labels in the order of the logits; None for a model without labels.

    They are the labels `given`, a list or a dict from indices; else those in the config of a stock checkpoint. The
    original and released checkpoints do not hold the answers of VQA. These are read from a file next to the weights
    ([`LABEL_FILES`]), or else named `LABEL_0`, `LABEL_1`, ... With `fill`, a label without a name gets such a name.
    """
    head = renamed.heads.get(task, {})
    sizes = [value.shape[0] for name, value in head.items() if name.startswith(f"{CLASSIFIER}.3.")]
    size = sizes[0] if sizes else None
    if given is not None:
        return ordered_labels(given, "config.id2label", size if fill else None)
    if size is None:
        return None
    default = [f"LABEL_{index}" for index in range(size)]
    for source, labels in known_labels(task, renamed, checkpoint):
        names = ordered_labels(labels, source, size if fill else None)
        if len(names) != size:
            way_out = "give others in config="
            if len(names) < size and isinstance(labels, dict):
                way_out += ", or name those that are missing LABEL_<index> with --fill-labels (fill_labels=True)"
            raise ValueError(f"{source} has {len(names)} labels, but the checkpoint {size}: {way_out}")
        return names
    known = LABELS.get(task, [])
    return known if len(known) == size else default


def known_labels(task: str, renamed: Renamed, checkpoint: Checkpoint) -> Iterator[tuple[str, Any]]:
    """Yield each place that names the labels of a checkpoint, and the labels there."""
    saved = checkpoint.config.get("id2label") or {}
    if renamed.layout.origin == "stock" and any(str(name) != f"LABEL_{index}" for index, name in saved.items()):
        yield "id2label of config.json", saved
    for name in LABEL_FILES if task == "vqa" else ():
        if (checkpoint.folder / name).is_file():
            yield str(checkpoint.folder / name), read_json(checkpoint.folder / name)


def ordered_labels(labels: Any, name: str, size: int | None = None) -> list[str]:
    """Return labels as a list, from a list or from a dict with an index for each. In JSON the indices are strings.

    Args:
        labels: the list or dict.
        name: where they are from, for errors.
        size: how many there are; an index below it that has no label gets the name `LABEL_<index>`. None: each index
            must have one.

    Raises:
        ValueError: an index has no label, or a key is no index. The message names the first one.
    """
    if isinstance(labels, list):
        return [str(label) for label in labels]
    if not isinstance(labels, dict):
        raise ValueError(f"{name}: labels are a list, or a dict from indices, not {type(labels).__name__}")
    no_index = next((index for index in labels if not str(index).isdecimal()), None)
    if no_index is not None:
        raise ValueError(f"{name}: {no_index!r} is no index: labels are a list, or a dict from indices")
    by_index = {int(index): str(label) for index, label in labels.items()}
    if size is not None:
        by_index = {**{index: f"LABEL_{index}" for index in range(size)}, **by_index}
    missing = [index for index in range(max(by_index, default=-1) + 1) if index not in by_index]
    if missing:
        shown = ", ".join(map(str, missing[:5])) + (", ..." if len(missing) > 5 else "")
        raise ValueError(
            f"{name}: no label has the index {shown}: add it, or name such a label LABEL_{missing[0]} with "
            "--fill-labels (fill_labels=True)"
        )
    return [by_index[index] for index in range(len(by_index))]
