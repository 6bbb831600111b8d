"""The training of a scorer of `lookahead` from begin to end: choose the layer, train, compare and save."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from accelerate.utils import broadcast_object_list
from datasets import Dataset
from torch import Tensor, nn
from transformers import set_seed
from transformers.utils import logging

from ..folders import check_writable, write_json
from ..hub.scorer import save_scorer_card
from ..models.bases import Base, Target, base_of
from ..models.scorers import SCORER_CONFIG, load_scorer, save_scorer
from ..reading import read_object
from ..reducers.lookahead import LookaheadReducer, LookaheadReductionConfig, TargetLayer
from ..results import Environment, ScorerReport, layer_table
from ..training.answers import budget_rows, choose_layer
from ..training.scorer import ScorerTrainer, ScorerTrainingArguments, add_scorer
from ..training.scorer_answers import AnswersTrainer
from ..training.sinks import grouped
from ..training.timing import TimeLeftCallback
from ..training.trainer import batch_size_of
from .interrupt import Stopped
from .record import weights_of
from .stages import close_progress_bar, last_complete_checkpoint, lost_steps

logger = logging.get_logger(__name__)

RESULTS_NAME = "results.json"
RECORD_NAME = "training.json"
"""The file that says what a scorer is made from. A resumed training compares it."""
SPEED_SECONDS = 4.0
"""How long the speed is measured."""
LAYER_EXAMPLES = 256
"""The number of examples, of those to train on, by which the layer is chosen."""
Value = TypeVar("Value")


@dataclass(frozen=True)
class ScorerData:
    """What a scorer is trained and tested on."""

    train: Dataset
    held_out: Dataset
    collator: Callable[[list[dict[str, Any]]], dict[str, Tensor]]
    words: str
    """The data in words, for the record."""

    def batches(self, split: str, size: int, most: int | None = None) -> Iterator[dict[str, Tensor]]:
        """Yield batches of the first rows of a split, `"train"` or `"held_out"`."""
        rows: Dataset = getattr(self, split)
        number = len(rows) if most is None else min(most, len(rows))
        for start in range(0, number, size):
            yield self.collator(list(rows.select(range(start, min(start + size, number)))))


def train_scorer(
    model: nn.Module,
    part: LookaheadReductionConfig,
    data: ScorerData,
    args: ScorerTrainingArguments,
    *,
    resume: bool = False,
) -> ScorerReport:
    """Train a scorer for a model, print what it keeps, and save it in `args.output_dir`.

    The folder gets the scorer ([`save_scorer`]), `results.json` with a [`ScorerReport`], and checkpoints. A folder
    that is complete is not trained again.

    Args:
        model: the model, which is frozen: an encoder that classifies, or a decoder of transformers' own class or of
            ours. Afterwards its reduction is the part with the scorer; a model of transformers' own class stays as it
            is.
        part: the part of the schedule. If it has no `target_layer`, the layer is chosen ([`choose_layer`]).
        data: images with texts.
        args: the arguments of the training.
        resume: go on in the folder, from its last checkpoint.

    Raises:
        FileExistsError: the folder holds something, and `resume` is not set.
        ValueError: the model has no answers to compare, or the folder is of another scorer.
        Stopped: Ctrl-C or SIGTERM ended the training.
    """
    folder = Path(args.output_dir)
    base = base_of(model, args.target())
    base.check_answers()
    check_folder(folder, resume)
    if base.movable:
        base.model.to(args.device)
    base.model.eval()
    record = begin(folder, made_from(base, part, data, args), resume, args)
    if (folder / RESULTS_NAME).is_file() and (folder / SCORER_CONFIG).is_file():
        logger.warning("%s is complete: the training of the scorer is skipped", folder)
        reducer = load_scorer(base.host, replace(part, target_layer=None, weights=str(folder)))
        assert isinstance(reducer, LookaheadReducer), "the part has its method"
        base.put(reducer)
        return ScorerReport.load(folder / RESULTS_NAME)
    if "layers" not in record:
        chosen, layers = on_first(args, lambda: chosen_layer(base, part, data, args))
        record |= {"target_layer": chosen, "layers": layers}
        if args.should_save:
            write_json(folder / RECORD_NAME, record)
    set_seed(args.seed)
    add_scorer(base, replace(part, target_layer=record["target_layer"]))
    trainer = first_stage(base, data, args)
    fit(trainer, folder, resume)
    if args.answer_steps:
        again = args.for_answers()
        fit(
            AnswersTrainer(base, args=again, train_dataset=data.train, data_collator=data.collator),
            Path(again.output_dir),
            resume,
        )
    report = on_first(args, lambda: compared(base, record, data, args))
    if args.should_save:
        save_scorer(base.host, folder, trained_on=data.words, steps=args.max_steps + args.answer_steps)
        report.save(folder / RESULTS_NAME)
        save_scorer_card(folder)
    trainer.accelerator.wait_for_everyone()
    return report


def first_stage(base: Base, data: ScorerData, args: ScorerTrainingArguments) -> ScorerTrainer:
    """Return the trainer of the first stage. If it removes sinks, its batches have several texts of each image."""
    rows: Any = data.train
    collator: Any = data.collator
    if args.sinks == "remove":
        rows, collator, size = grouped(data.train, data.collator, args.per_device_train_batch_size)
        args = replace(args, per_device_train_batch_size=size)
    return ScorerTrainer(base, args=args, train_dataset=rows, data_collator=collator)


def check_folder(folder: Path, resume: bool) -> None:
    """Make the folder of a scorer.

    Raises:
        FileExistsError: it holds something already, and `resume` is not set.
        ValueError: nothing can be written there.
    """
    if folder.is_dir() and any(folder.iterdir()) and not resume:
        done = ", which is finished" if (folder / SCORER_CONFIG).is_file() else ""
        raise FileExistsError(
            f"{folder} holds a training or other files already{done}; continue it with --resume, or choose another "
            "folder"
        )
    check_writable(folder, "the folder of the scorer")


def made_from(
    base: Base, part: LookaheadReductionConfig, data: ScorerData, args: ScorerTrainingArguments
) -> dict[str, Any]:
    """Return what a scorer is made from, in plain JSON types."""
    name = base.model.name_or_path
    record = {
        "model": weights_of(name) if name else type(base.model).__name__,
        "part": {**asdict(part), "weights": None},
        "data": data.words,
        "rows": [len(data.train), len(data.held_out)],
        "seed": args.seed,
    }
    if base.target != Target():  # the default is that of encoders too, whose records do not name it
        record["target"] = asdict(base.target)
    if args.sinks != "keep":
        record["sinks"] = args.sinks
    return json.loads(json.dumps(record))


def begin(folder: Path, record: dict[str, Any], resume: bool, args: ScorerTrainingArguments) -> dict[str, Any]:
    """Write the record of a new training. If the training is resumed, return its record, with the layer it has chosen.

    Raises:
        ValueError: the training in the folder was made from something else.
    """
    path = folder / RECORD_NAME
    if not (resume and path.is_file()):
        if args.should_save:
            write_json(path, record)
        return record
    known = read_object(path)
    names = [*record, *(name for name in ("target", "sinks") if name in known and name not in record)]
    changed = [name for name in names if known.get(name) != record.get(name)]
    if changed:
        name = changed[0]
        raise ValueError(
            f"{path}: {name}={json.dumps(known.get(name))}, but --resume would use {json.dumps(record.get(name))}: "
            "give the flags that it was made with, or choose another folder"
        )
    return known


def chosen_layer(
    base: Base, part: LookaheadReductionConfig, data: ScorerData, args: ScorerTrainingArguments
) -> tuple[TargetLayer, dict[str, float]]:
    """Return the layer to predict, and what each layer keeps, which is printed too. A layer that is given is taken."""
    if part.target_layer is not None:
        return part.target_layer, {}
    number = min(LAYER_EXAMPLES, len(data.train))
    print(f"Which layer's attention, as the choice of a ninth of the patches, keeps most answers ({number} examples):")
    layer, kept = choose_layer(base, part, data.batches("train", args.per_device_eval_batch_size, number))
    print(layer_table(kept, layer))
    return layer, {str(index): share for index, share in kept.items()}


def fit(trainer: ScorerTrainer, folder: Path, resume: bool) -> None:
    """Train, from the last checkpoint of a folder if the training is resumed.

    Raises:
        Stopped: Ctrl-C or SIGTERM ended the training.
    """
    trainer.add_callback(TimeLeftCallback())
    checkpoint = last_complete_checkpoint(folder) if resume else None
    try:
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    except KeyboardInterrupt as error:
        close_progress_bar(trainer)
        raise Stopped(lost_steps(folder, trainer.state)) from error


def compared(
    base: Base,
    record: Mapping[str, Any],
    data: ScorerData,
    args: ScorerTrainingArguments,
) -> ScorerReport:
    """Compare the trained scorer with other methods, and print the table."""
    size, layer = args.per_device_eval_batch_size, record["target_layer"]
    first = next(data.batches("held_out", size))
    rows = budget_rows(base, layer, data.batches("held_out", size), first, SPEED_SECONDS)
    batch_size = batch_size_of(first)
    report = ScorerReport(record["layers"], layer, tuple(rows), len(data.held_out), batch_size, Environment.current())
    print(*report.lines(), sep="\n")
    return report


def on_first(args: ScorerTrainingArguments, work: Callable[[], Value]) -> Value:
    """Do some work in the first process, and return its result in every process."""
    results = [work() if args.process_index == 0 else None]
    broadcast_object_list(results)
    return results[0]  # type: ignore[return-value]
