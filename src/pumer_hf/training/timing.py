"""Trainer callbacks about time: a checkpoint every few minutes, and an estimate of how long a stage will take."""

import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import broadcast
from tqdm.auto import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, SaveStrategy

from ..figures import duration

ESTIMATE_AFTER = 20
"""The number of steps after which the time left is estimated."""


class TimedCheckpointCallback(TrainerCallback):
    """Saves a checkpoint a number of minutes after the last one, in addition to those of `args.save_strategy`.

    It waits a step if the Trainer evaluates or an epoch ends, and it saves nothing after the last step. So the clock
    changes neither which checkpoint is the best one nor what a resumed run evaluates. A checkpoint of the clock is
    removed once there is a newer one, except after a resume. If the Trainer saves the same step too, the checkpoint
    counts as the Trainer's. A [`DistillationTrainer`] does not push the checkpoints of the clock. With
    `save_strategy="no"`, the clock saves nothing.

    Args:
        minutes: time between checkpoints, above 0.
    """

    def __init__(self, minutes: float):
        if minutes <= 0:
            raise ValueError(f"minutes={minutes}: must be above 0")
        self.minutes = minutes
        self.saved_at = time.monotonic()
        self.asked_at: int | None = None  # the step of a checkpoint that the clock has asked for
        self.removable: Path | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.saved_at, self.asked_at, self.removable = time.monotonic(), None, None

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        ends = state.global_step >= state.max_steps or (state.epoch is not None and float(state.epoch).is_integer())
        if args.save_strategy == SaveStrategy.NO or control.should_save or control.should_evaluate or ends:
            return
        if self._is_due(args):
            self.asked_at = state.global_step
            control.should_save = True

    def _is_due(self, args: TrainingArguments) -> bool:
        """Whether a checkpoint is due. The clock of the first process decides for all processes."""
        due = time.monotonic() - self.saved_at >= 60 * self.minutes
        return due if args.world_size == 1 else bool(broadcast(torch.tensor(int(due), device=args.device)))

    def asked(self, state: TrainerState) -> bool:
        """Whether the checkpoint of this step is saved only because of the clock."""
        return self.asked_at == state.global_step

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.saved_at = time.monotonic()
        newest = Path(args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"
        if self.removable is not None and self.removable != newest and args.should_save:
            shutil.rmtree(self.removable, ignore_errors=True)  # `save_total_limit` may have removed it
        self.removable = newest if self.asked(state) else None
        self.asked_at = None


class TimeLeftCallback(TrainerCallback):
    """Prints an estimate of the time that is left, after the first steps, on the main process.

    Args:
        lengths: how long each stage of the run is, in words, by the name of its folder, in order. The callback also
            prints the stages that come later.
    """

    def __init__(self, lengths: Mapping[str, str] | None = None) -> None:
        self.lengths = dict(lengths or {})
        self.first_step = 0
        self.second_begins = 0.0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.first_step = state.global_step

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        done, left = state.global_step - self.first_step, state.max_steps - state.global_step
        if done == 1:
            self.second_begins = time.monotonic()  # the first step takes longer than the others
        if done == ESTIMATE_AFTER and left > 0 and state.is_world_process_zero:
            each = (time.monotonic() - self.second_begins) / (done - 1)
            stage = Path(args.output_dir).name
            tqdm.write(
                f"{stage}: about {duration(each * left)} for the {left:,} steps that are left of "
                f"{state.max_steps:,}, at {duration(each)} each; evaluations come on top"
                f"{self._what_comes_after(stage)}"
            )

    def _what_comes_after(self, stage: str) -> str:
        names = list(self.lengths)
        later = names[names.index(stage) + 1 :] if stage in names else []
        listed = ", ".join(f"{name} ({self.lengths[name]})" for name in later)
        return f". This is for one stage: then {'come' if len(later) > 1 else 'comes'} {listed}" if later else ""
