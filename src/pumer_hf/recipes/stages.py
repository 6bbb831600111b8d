"""One stage of a recipe: train a model, save it, and predict with it."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

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
    Trainer,
    TrainerState,
)
from transformers.utils import logging

from ..data.collator import Collator
from ..models.reducible import reduces_tokens
from ..tokens import NUM_PREFIX_TOKENS, LayerTrace
from ..training.callbacks import (
    ElasticCallback,
    EpochDrawsCallback,
    ReductionWarmupCallback,
    TokenReductionCallback,
)
from ..training.placement import fit_checkpoint
from ..training.teacher_logits import add_teacher_logits
from ..training.timing import TimedCheckpointCallback, TimeLeftCallback
from ..training.trainer import DistillationTrainer
from .adapters import save_merged, with_adapters
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
    teacher: Any = None,
    teacher_collator: Callable | None = None,
    eval_collator: Callable | None = None,
    lengths: Mapping[str, str] | None = None,
    lora: Mapping[str, Any] | None = None,
) -> None:
    """Train `model` and save it with its processor to `args.output_dir`. With `args.resume`, do what is left.

    With `args.max_steps=0` the model is saved as it is.

    A `teacher_collator` makes other inputs for the teacher than `collator` does for the model. The logits of the
    teacher are then computed in advance. `lengths`: see [`TimeLeftCallback`].

    With `lora`, the fields of peft's `LoraConfig`, adapters learn and become a part of the weights at the end. The
    model without them is the teacher if `teacher` is [`BASE`].

    Raises:
        FileExistsError: the folder holds a run already, and `args.resume` is not set.
        ValueError: see [`resume_point`].
        Stopped: Ctrl-C or SIGTERM ended the training.
    """
    folder = Path(args.output_dir)
    check_new_run(args)
    if is_complete(folder):
        logger.warning("%s is complete: this stage is skipped", folder)
        return
    point = resume_point(args)
    if args.max_steps == 0:
        teacher = None
    if isinstance(teacher, PreTrainedModel) and (args.cache_teacher_logits or teacher_collator is not None):
        with args.main_process_first(desc="teacher logits"):
            train = add_teacher_logits(
                train,
                teacher.to(args.device),
                teacher_collator or collator,
                cache_dir=folder.parent / "cache",
                batch_size=args.per_device_eval_batch_size,
            )
        teacher = None
    trained: Any = model
    if lora is not None:
        trained = with_adapters(model, lora)
        args.push_to_hub = False  # the whole model is pushed with the results of the run
    trainer = DistillationTrainer(
        trained,
        teacher=teacher,
        args=args,
        train_dataset=train,
        eval_dataset=validation,
        data_collator=collator,
        eval_collator=eval_collator,
        processing_class=processor,
        compute_metrics=compute_metrics,
    )
    # The example of a streamed dataset would open it a second time, so a validation row takes its place.
    add_callbacks(trainer, collator, validation[0] if isinstance(train, IterableDataset) else None, lengths)
    try:
        if args.max_steps != 0:
            run_training(trainer, point, args.early_stopping_patience)
    except KeyboardInterrupt as error:
        close_progress_bar(trainer)
        raise Stopped(lost_steps(folder, trainer.state)) from error
    if lora is None:
        trainer.save_model()
    else:
        save_merged(trainer, trained)
    trainer.save_state()
    trainer.accelerator.wait_for_everyone()


def add_callbacks(
    trainer: DistillationTrainer, collator: Callable, example: Any, lengths: Mapping[str, str] | None
) -> None:
    """Add the callbacks of a stage.

    Args:
        trainer: the trainer of the stage. Its model and arguments decide which callbacks are needed.
        collator: the collator of the training rows.
        example: see [`TokenReductionCallback`].
        lengths: see [`TimeLeftCallback`].
    """
    args = cast(RecipeTrainingArguments, trainer.args)
    if reduces_tokens(trainer.model):
        if args.reduction_warmup_steps:
            trainer.add_callback(ReductionWarmupCallback(args.reduction_warmup_steps))
        trainer.add_callback(TokenReductionCallback(trainer, example))
        if args.elastic:
            trainer.add_callback(ElasticCallback(args.elastic))
    if isinstance(collator, Collator):
        trainer.add_callback(EpochDrawsCallback(collator))
    trainer.add_callback(TimeLeftCallback(lengths))
    if args.save_minutes:
        trainer.add_callback(TimedCheckpointCallback(args.save_minutes))


@dataclass(frozen=True)
class ResumePoint:
    """Where an interrupted stage goes on."""

    checkpoint: Path
    """The checkpoint to load: the last one, or, if training had ended and the arguments ask for it, the best one."""
    state: TrainerState
    """The state of the last checkpoint."""
    ended: bool
    """Whether training had ended, after all steps or by an early stop. Then only the model has to be saved."""
    patience_used: int
    """The number of evaluations since the best metric."""


def resume_point(args: RecipeTrainingArguments) -> ResumePoint | None:
    """Return where a stage goes on; None if it begins anew.

    Raises:
        ValueError: training had ended, and the checkpoint of the best model is missing or incomplete.
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
        checkpoint = folder / Path(state.best_model_checkpoint).name  # the folder may have been moved
        if not is_complete(checkpoint):
            raise ValueError(
                f"{checkpoint} is not there or incomplete, but it has the best model of its stage: bring it back, "
                "leave load_best_model_at_end out to take the last one, or choose another --output_dir"
            )
        state.best_model_checkpoint = str(checkpoint)
    return ResumePoint(checkpoint, state, ended, used)


def run_training(trainer: DistillationTrainer, point: ResumePoint | None, patience: int) -> None:
    """Train from the beginning, or from where the stage goes on.

    Args:
        trainer: the trainer of the stage.
        point: where the stage goes on; None: at the beginning.
        patience: stop after this many evaluations without a better metric; 0: never.
    """
    if patience:
        stopper = EarlyStoppingCallback(patience)
        # Not with `restore_callback_states_from_checkpoint`, which would also restore the old patience.
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


def close_progress_bar(trainer: Trainer) -> None:
    """Close the progress bar. Otherwise it is drawn again at the end of the program, below the last message."""
    callback = trainer.pop_callback(ProgressCallback)
    if callback is not None and callback.training_bar is not None:
        callback.training_bar.close()


def lost_steps(folder: Path, state: TrainerState) -> str:
    """Say how many steps of a stage are lost if it is stopped now."""
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
    """Return the latest complete checkpoint; None if there is none."""
    complete = [path for path in folder.glob("checkpoint-*") if is_complete(path)]
    return max(complete, key=lambda path: int(path.name.split("-")[1]), default=None)


def is_complete(folder: Path) -> bool:
    """Whether a folder is complete. Its state, which is written last, is then valid JSON."""
    try:
        json.loads((folder / STATE_NAME).read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return False
    return True


def check_new_run(args: RecipeTrainingArguments) -> None:
    """Raise `FileExistsError` if the output folder holds a run and `args.resume` is not set."""
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


class Predictions(NamedTuple):
    """What a model computes of N rows."""

    logits: np.ndarray
    """float (N, C)."""
    labels: np.ndarray | None
    """The labels of the rows; None if they have none."""
    image_tokens: np.ndarray | None
    """int (N,): how many image tokens each row keeps; None if it keeps as many as all others (`keep_mass` differs)."""


@torch.no_grad()
def predict(
    args: RecipeTrainingArguments, model: PreTrainedModel, dataset: Dataset, collator: Callable
) -> Predictions:
    """Return the logits of all rows, and what goes with them, in order, in every process.

    Each process predicts a part of the rows. `Trainer.predict` is not used, as under DeepSpeed it needs the engine of
    the training. `model` must be whole, not sharded ([`whole_models`]).
    """
    model = model.to(args.device).eval()
    state = PartialState()
    logits, labels, image_tokens = [], [], []
    with state.split_between_processes(list(range(len(dataset)))) as indices:
        starts = range(0, len(indices), args.per_device_eval_batch_size)
        for start in tqdm(starts, desc="predict", disable=args.disable_tqdm or not state.is_local_main_process):
            batch = collator([dataset[index] for index in indices[start : start + args.per_device_eval_batch_size]])
            if "labels" in batch:
                labels.append(batch.pop("labels").numpy())
            inputs = {name: value.to(args.device) for name, value in batch.items()}
            with args.autocast():
                outputs = model(**inputs)
            logits.append(outputs.logits.float().cpu().numpy())
            image_tokens += kept_image_tokens(outputs.get("reduction") or ())
    labels, image_tokens = gather_object(labels), gather_object(image_tokens)
    return Predictions(
        np.concatenate(gather_object(logits)),
        np.concatenate(labels) if labels else None,
        np.array(image_tokens) if image_tokens else None,
    )


def kept_image_tokens(traces: Sequence[LayerTrace]) -> list[int]:
    """Return how many image tokens each example of a batch keeps, without the [CLS], of all its images together.

    It is empty if each keeps as many.
    """
    lengths = [trace.image_lengths - NUM_PREFIX_TOKENS for trace in traces if trace.image_lengths is not None]
    return torch.stack(lengths).sum(dim=0).tolist() if lengths else []
