"""One stage of a recipe: train a model, save it, and predict with it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import cast

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from datasets import Dataset
from tqdm.auto import tqdm
from transformers import EarlyStoppingCallback, EvalPrediction, PreTrainedModel, ProcessorMixin, TrainerState
from transformers.utils import logging

from .callbacks import ReductionWarmupCallback, TokenReductionCallback
from .placement import fit_checkpoint
from .recipe import RecipeTrainingArguments
from .teacher_logits import add_teacher_logits
from .trainer import DistillationTrainer

logger = logging.get_logger(__name__)

STATE_NAME = "trainer_state.json"  # written last, so a folder that has it is complete


def train_stage(
    args: RecipeTrainingArguments,
    model: PreTrainedModel,
    *,
    train: Dataset,
    validation: Dataset,
    collator: Callable,
    processor: ProcessorMixin,
    compute_metrics: Callable[[EvalPrediction], dict[str, float]],
    teacher: PreTrainedModel | None = None,
    teacher_collator: Callable | None = None,
    eval_collator: Callable | None = None,
) -> None:
    """Train `model` and save it with its processor to `args.output_dir`; with `args.resume`, do what is left of that.

    A `teacher_collator` makes other inputs for the teacher than `collator` does for the model; its logits are then
    computed before.

    Raises:
        FileExistsError: the folder holds a run already, and `args.resume` is not set.
    """
    folder = Path(args.output_dir)
    check_new_run(args)
    if is_complete(folder):
        logger.warning("%s is complete: this stage is skipped", folder)
        return
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
    if model.reduction is not None:
        if args.reduction_warmup_steps:
            trainer.add_callback(ReductionWarmupCallback(args.reduction_warmup_steps))
        trainer.add_callback(TokenReductionCallback(trainer))
    run_training(trainer, last_complete_checkpoint(folder) if args.resume else None)
    trainer.save_model()
    trainer.save_state()
    trainer.accelerator.wait_for_everyone()


def run_training(trainer: DistillationTrainer, checkpoint: Path | None) -> None:
    """Train from the beginning, or do what is left after a checkpoint: nothing, if training had ended there."""
    args = cast(RecipeTrainingArguments, trainer.args)
    stopper = EarlyStoppingCallback(args.early_stopping_patience)
    if args.early_stopping_patience:
        trainer.add_callback(stopper)
    if checkpoint is None:
        trainer.train()
        return
    state = TrainerState.load_from_json(str(checkpoint / STATE_NAME))
    saved = state.stateful_callbacks.get(type(stopper).__name__, {})
    # Not by `restore_callback_states_from_checkpoint`, which would bring back the patience of then too.
    waited = saved.get("attributes", {}).get("early_stopping_patience_counter", 0)
    stopper.early_stopping_patience_counter = waited
    stopped_early = 0 < args.early_stopping_patience <= waited
    if state.global_step < state.max_steps and not stopped_early:
        fit_checkpoint(checkpoint, trainer.accelerator)
        trainer.train(resume_from_checkpoint=str(checkpoint))
        return
    if args.load_best_model_at_end and state.best_model_checkpoint is not None:
        checkpoint = best_checkpoint(state, checkpoint.parent)
    trainer._load_from_checkpoint(str(checkpoint))
    trainer.state = state


def best_checkpoint(state: TrainerState, folder: Path) -> Path:
    """The best checkpoint of a stage, which `state` learns is in `folder`: that may have been moved meanwhile.

    Raises:
        ValueError: it is not there, or not whole.
    """
    best = folder / Path(str(state.best_model_checkpoint)).name
    if not is_complete(best):
        raise ValueError(
            f"{best} is not there or not whole, and it is the best model of its stage: bring it back, leave "
            "load_best_model_at_end out to take the last one, or choose another --output_dir"
        )
    state.best_model_checkpoint = str(best)
    return best


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
        raise FileExistsError(
            f"{folder} holds a run already: continue it with --resume, or choose another --output_dir"
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
