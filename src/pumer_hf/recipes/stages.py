"""One stage of a recipe: train a model, save it, and predict with it."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from datasets import Dataset, IterableDataset
from tqdm.auto import tqdm
from transformers import (
    EarlyStoppingCallback,
    EvalPrediction,
    PreTrainedModel,
    ProcessorMixin,
    ProgressCallback,
    TrainerState,
)
from transformers.utils import logging

from ..data.collator import Collator
from ..models.reduction import reduces_tokens
from ..training.callbacks import EpochDrawsCallback, ReductionWarmupCallback, TokenReductionCallback
from ..training.placement import fit_checkpoint
from ..training.teacher_logits import add_teacher_logits
from ..training.timing import TimedCheckpointCallback, TimeLeftCallback
from ..training.trainer import DistillationTrainer
from .interrupt import Stopped, resuming_command
from .recipe import RecipeTrainingArguments

logger = logging.get_logger(__name__)

STATE_NAME = "trainer_state.json"  # written last, so a folder that has it is complete


def train_stage(
    args: RecipeTrainingArguments,
    model: PreTrainedModel,
    *,
    train: Dataset | IterableDataset,
    validation: Dataset,
    collator: Callable,
    processor: ProcessorMixin,
    compute_metrics: Callable[[EvalPrediction], dict[str, float]],
    teacher: PreTrainedModel | None = None,
    teacher_collator: Callable | None = None,
    eval_collator: Callable | None = None,
    lengths: Mapping[str, str] | None = None,
) -> None:
    """Train `model` and save it with its processor to `args.output_dir`; with `args.resume`, do what is left of that.

    A `teacher_collator` makes other inputs for the teacher than `collator` does for the model; its logits are then
    computed before. `lengths` are as of [`TimeLeftCallback`].

    Raises:
        FileExistsError: the folder holds a run already, and `args.resume` is not set.
        ValueError: of [`resume_point`].
        Stopped: Ctrl-C or SIGTERM ended the training.
    """
    folder = Path(args.output_dir)
    check_new_run(args)
    if is_complete(folder):
        logger.warning("%s is complete: this stage is skipped", folder)
        return
    point = resume_point(args)
    if teacher is not None and (args.cache_teacher_logits or teacher_collator is not None):
        with args.main_process_first(desc="teacher logits"):
            train = add_teacher_logits(
                train,
                teacher.to(args.device),
                teacher_collator or collator,
                cache_dir=folder.parent / "cache",
                batch_size=args.per_device_eval_batch_size,
            )
        teacher = None
    trainer = DistillationTrainer(
        model,
        teacher=teacher,
        args=args,
        train_dataset=train,
        eval_dataset=validation,
        data_collator=collator,
        eval_collator=eval_collator,
        processing_class=processor,
        compute_metrics=compute_metrics,
    )
    # A streamed dataset would be opened a second time for its first row.
    add_callbacks(trainer, collator, validation[0] if isinstance(train, IterableDataset) else None, lengths)
    try:
        run_training(trainer, point, args.early_stopping_patience)
    except KeyboardInterrupt as error:
        close_progress_bar(trainer)
        raise Stopped(lost_steps(folder, trainer.state)) from error
    trainer.save_model()
    trainer.save_state()
    trainer.accelerator.wait_for_everyone()


def add_callbacks(
    trainer: DistillationTrainer, collator: Callable, example: Any, lengths: Mapping[str, str] | None
) -> None:
    """Add what a stage does beside the steps of training.

    Args:
        trainer: of the stage; it decides what is needed.
        collator: of the rows to train on.
        example: as of [`TokenReductionCallback`].
        lengths: as of [`TimeLeftCallback`].
    """
    args = cast(RecipeTrainingArguments, trainer.args)
    if reduces_tokens(trainer.model):
        if args.reduction_warmup_steps:
            trainer.add_callback(ReductionWarmupCallback(args.reduction_warmup_steps))
        trainer.add_callback(TokenReductionCallback(trainer, example))
    if isinstance(collator, Collator):
        trainer.add_callback(EpochDrawsCallback(collator))
    trainer.add_callback(TimeLeftCallback(lengths))
    if args.save_minutes:
        trainer.add_callback(TimedCheckpointCallback(args.save_minutes))


@dataclass(frozen=True)
class ResumePoint:
    """Where an interrupted stage goes on."""

    checkpoint: Path
    """What to load: the last checkpoint, or, if training had ended there, the best one if that is asked for."""
    state: TrainerState
    """Of the last checkpoint."""
    ended: bool
    """Whether training had ended there, after all steps or by an early stop: all that is left is to save the model."""
    patience_used: int
    """Evaluations since the best metric."""


def resume_point(args: RecipeTrainingArguments) -> ResumePoint | None:
    """Where a stage goes on; None if it begins anew.

    Raises:
        ValueError: training had ended, and the checkpoint of the best model is not there or not whole.
    """
    folder = Path(args.output_dir)
    checkpoint = last_complete_checkpoint(folder) if args.resume else None
    if checkpoint is None:
        return None
    state = TrainerState.load_from_json(str(checkpoint / STATE_NAME))
    stopper = state.stateful_callbacks.get(EarlyStoppingCallback.__name__, {})
    used = stopper.get("attributes", {}).get("early_stopping_patience_counter", 0)
    ended = state.global_step >= state.max_steps or 0 < args.early_stopping_patience <= used
    if ended and args.load_best_model_at_end and state.best_model_checkpoint is not None:
        checkpoint = folder / Path(state.best_model_checkpoint).name  # the folder may have been moved meanwhile
        if not is_complete(checkpoint):
            raise ValueError(
                f"{checkpoint} is not there or not whole, and it has the best model of its stage: bring it back, "
                "leave load_best_model_at_end out to take the last one, or choose another --output_dir"
            )
        state.best_model_checkpoint = str(checkpoint)
    return ResumePoint(checkpoint, state, ended, used)


def run_training(trainer: DistillationTrainer, point: ResumePoint | None, patience: int) -> None:
    """Train from the beginning, or do what is left.

    Args:
        trainer: of the stage.
        point: where the stage goes on, if it does.
        patience: stop after so many evaluations without a better metric; 0: never.
    """
    if patience:
        stopper = EarlyStoppingCallback(patience)
        # Not by `restore_callback_states_from_checkpoint`, which would bring back the patience of then too.
        stopper.early_stopping_patience_counter = 0 if point is None else point.patience_used
        trainer.add_callback(stopper)
    if point is None:
        trainer.train()
    elif point.ended:
        trainer._load_from_checkpoint(str(point.checkpoint))
        trainer.state = point.state
    else:
        fit_checkpoint(point.checkpoint, trainer.accelerator)
        trainer.train(resume_from_checkpoint=str(point.checkpoint))


def close_progress_bar(trainer: DistillationTrainer) -> None:
    """Close the progress bar, which otherwise is drawn once more at the end of the program, below the last message."""
    callback = trainer.pop_callback(ProgressCallback)
    if callback is not None and callback.training_bar is not None:
        callback.training_bar.close()


def lost_steps(folder: Path, state: TrainerState) -> str:
    """What is lost of a stage that is stopped now, in words."""
    checkpoint = last_complete_checkpoint(folder)
    saved = 0 if checkpoint is None else TrainerState.load_from_json(str(checkpoint / STATE_NAME)).global_step
    if checkpoint is not None and state.global_step < saved:
        return f"{folder.name} had not gone on yet after its last checkpoint, of step {saved:,}, so no step is lost"
    if state.max_steps == 0:
        return f"{folder.name} had not begun, so no step is lost"
    where = "there is no checkpoint yet" if checkpoint is None else f"the last checkpoint is of step {saved:,}"
    lost = state.global_step - saved
    number = {0: "no step is", 1: "1 step is"}.get(lost, f"{lost:,} steps are")
    return f"{folder.name} was at step {state.global_step:,} of {state.max_steps:,}, {where}, so {number} lost"


def last_complete_checkpoint(folder: Path) -> Path | None:
    """The latest checkpoint that was written to its end, if there is one."""
    complete = [path for path in folder.glob("checkpoint-*") if is_complete(path)]
    return max(complete, key=lambda path: int(path.name.split("-")[1]), default=None)


def is_complete(folder: Path) -> bool:
    """Whether a folder was written to its end: the state, which comes last, is there and is whole."""
    try:
        json.loads((folder / STATE_NAME).read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return False
    return True


def check_new_run(args: RecipeTrainingArguments) -> None:
    """Raise `FileExistsError` if the output folder holds a run that `args.resume` does not ask to continue."""
    folder = Path(args.output_dir)
    if folder.is_dir() and any(folder.iterdir()) and not args.resume:
        results = folder / "results.json"
        done = f", which is finished: {results} has its results" if results.is_file() else ""
        what = "evaluate it again" if done else "continue it"
        command = resuming_command()
        again = f"`{command}`" if command else "--resume"
        raise FileExistsError(
            f"{folder} holds a run already{done}; {what} with {again}, or choose another --output_dir to begin anew"
        )


@torch.no_grad()
def predict(
    args: RecipeTrainingArguments, model: PreTrainedModel, dataset: Dataset, collator: Callable
) -> tuple[np.ndarray, np.ndarray | None]:
    """Logits of every row, and labels if the rows have any, in order, in every process; each predicts its share.

    Not `Trainer.predict`, which under DeepSpeed needs the engine that it trained with. `model` is a whole one
    ([`whole_models`]).
    """
    model = model.to(args.device).eval()
    state = PartialState()
    logits, labels = [], []
    with state.split_between_processes(list(range(len(dataset)))) as own:
        starts = range(0, len(own), args.per_device_eval_batch_size)
        for start in tqdm(starts, desc="predict", disable=args.disable_tqdm or not state.is_local_main_process):
            batch = collator([dataset[index] for index in own[start : start + args.per_device_eval_batch_size]])
            if "labels" in batch:
                labels.append(batch.pop("labels").numpy())
            inputs = {name: value.to(args.device) for name, value in batch.items()}
            with args.autocast():
                logits.append(model(**inputs).logits.float().cpu().numpy())
    labels = gather_object(labels)
    return np.concatenate(gather_object(logits)), np.concatenate(labels) if labels else None
