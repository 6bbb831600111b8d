"""Trainer callbacks for token reduction and for random draws."""

import inspect
from collections.abc import Sequence
from random import Random
from typing import Any

import torch
from torch.utils.data import IterableDataset
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import has_length

from ..data.collator import Collator
from ..flops import count_flops
from ..models.decoders.images import ImageTrace
from ..models.reducible import reducible_model, reduction_of
from ..tokens import LayerTrace


class TokenReductionCallback(TrainerCallback):
    """Logs the tokens that leave each reduction layer and the GFLOPs of one example, through the Trainer's reporters.

    It logs before the first step and whenever the schedule changes. Add it with
    `trainer.add_callback(TokenReductionCallback(trainer))`.

    Args:
        trainer: the trainer, whose data collator turns the example into model inputs.
        example: a row for the data collator. Default: the first training example. A streamed dataset is opened a
            second time for it.
    """

    def __init__(self, trainer: Trainer, example: Any = None):
        self.trainer = trainer
        self.example = example
        self.logged: Any = ()  # no schedule yet

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self.example is None:
            dataset = self.trainer.train_dataset
            self.example = next(iter(dataset)) if isinstance(dataset, IterableDataset) else dataset[0]

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._log_changes()

    def _log_changes(self) -> None:
        model = reducible_model(self.trainer.model)
        reduction = reduction_of(model)
        schedule = reduction.schedule
        if schedule == self.logged:
            return
        self.logged = schedule
        names = inspect.signature(model.forward).parameters
        with torch.random.fork_rng():  # what a collator draws for the log must not change the steps that follow
            inputs = self.trainer.data_collator([self.example])
            inputs = {name: value for name, value in inputs.items() if name in names}
            flops, outputs = count_flops(model, self.trainer._prepare_inputs(inputs))
        logs = {"gflops_per_example": flops / 1e9}
        self.trainer.log({**logs, **token_counts(outputs.get("reduction") or ())})


def token_counts(traces: Sequence[LayerTrace | ImageTrace]) -> dict[str, float]:
    """Return the tokens that leave each reduction of an example, by names for a log.

    With `keep_mass` another example may keep more of them, or fewer.

    Of an encoder it is the tokens of one image and of its text. Of a decoder, which cuts no text, it is the tokens of
    all images of the prompt.

    Args:
        traces: those of one example.
    """
    counts: dict[str, float] = {}
    for trace in traces:
        if isinstance(trace, ImageTrace):
            name = f"image_tokens/{'inputs' if trace.layer is None else f'layer_{trace.layer}'}"
            counts[name] = counts.get(name, 0) + len(trace.kept)
        elif trace.image_index == 0:
            at_layer = f"layer_{trace.layer}"
            place = {"inputs": "inputs", "tower": f"tower_{at_layer}"}.get(trace.site, at_layer)
            counts[f"text_tokens/{place}"] = trace.num_text
            counts[f"image_tokens/{place}"] = trace.num_image
    return counts


class EpochDrawsCallback(TrainerCallback):
    """Makes the random draws of a collator depend only on `args.seed`, the epoch and the rows of a batch.

    So a run that is resumed within an epoch draws the same as an uninterrupted one, even if the stopped run had drawn
    batches ahead. It does not work with `args.dataloader_persistent_workers`: such workers keep the collator of the
    first epoch.
    """

    def __init__(self, collator: Collator):
        self.collator = collator
        self.epoch = 0

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        train_dataloader: Any = None,
        **kwargs: Any,
    ) -> None:
        # If data have no length, the Trainer resumes in the first pass, and its `state.epoch` counts no passes.
        self.epoch = int(state.epoch or 0) if has_length(train_dataloader) else 0

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.collator.draws_of = f"seed {args.seed}, epoch {self.epoch}"
        self.epoch += 1


class ReductionWarmupCallback(TrainerCallback):
    """Ramps the ratios linearly from 0 to those of `config.reduction` over the first training steps.

    The saved config always holds the full ratios. Add it with `trainer.add_callback(ReductionWarmupCallback(steps))`.

    Args:
        warmup_steps: optimizer steps until the full ratios, at least 1.
        num_stages: number of different schedules on the ramp. Each has new tensor shapes.
    """

    def __init__(self, warmup_steps: int, num_stages: int = 10):
        if warmup_steps < 1 or num_stages < 1:
            raise ValueError(f"warmup_steps={warmup_steps}, num_stages={num_stages}: must be at least 1")
        self.warmup_steps = warmup_steps
        self.num_stages = num_stages

    def factor(self, step: int) -> float:
        """Fraction of the ratios that applies at optimizer step `step`, in [0, 1]."""
        return min(self.num_stages * step // self.warmup_steps, self.num_stages) / self.num_stages

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **kwargs: Any
    ) -> None:
        if state.global_step <= self.warmup_steps:
            reduction_of(model).scale(self.factor(state.global_step))

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **kwargs: Any
    ) -> None:
        reduction_of(model).scale(1.0)


class ElasticCallback(TrainerCallback):
    """Trains one model for a range of speeds: each optimizer step multiplies the ratios by a factor of its own.

    The factors of three steps in turn are the least one, the most one, and one that is drawn between them. They depend
    on `args.seed` and the number of the step alone. So they are the same in all processes, and in a resumed run. The
    batches that gradients are accumulated over have one factor. Between the steps the ratios are those of
    `config.reduction`: evaluations and checkpoints have them.

    Add it with `trainer.add_callback(ElasticCallback([0.0, 1.0]))`, after a [`TokenReductionCallback`], which then
    logs the full schedule alone.

    Args:
        factors: the least and the most factor, in [0, 1]. 0 reduces nothing, 1 is the full schedule.
    """

    def __init__(self, factors: Sequence[float]):
        check_factors(factors, "factors")
        self.least, self.most = factors

    def factor(self, step: int, seed: int) -> float:
        """The factor of optimizer step `step`."""
        drawn = Random(f"seed {seed}, step {step}").uniform(self.least, self.most)
        return (self.least, self.most, drawn)[step % 3]

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **kwargs: Any
    ) -> None:
        reduction_of(model).scale(self.factor(state.global_step, args.seed))

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **kwargs: Any
    ) -> None:
        reduction_of(model).scale(1.0)


def check_factors(factors: Any, name: str) -> None:
    """Raise `ValueError` if `factors` are not the least and the most factor of an [`ElasticCallback`].

    Args:
        factors: the value to check.
        name: what the message calls it.
    """
    numbers: Sequence[Any] = factors if isinstance(factors, (list, tuple)) else ()
    if len(numbers) != 2 or any(isinstance(one, bool) or not isinstance(one, (int, float)) for one in numbers):
        raise ValueError(f"{name}={factors!r}: give two numbers, the least and the most factor, such as [0.0, 1.0]")
    least, most = numbers
    if not (0 <= least <= 1 and 0 <= most <= 1):
        raise ValueError(f"{name}={factors!r}: a factor must be in [0, 1]; for more reduction, change the schedule")
    if least >= most:
        raise ValueError(f"{name}={factors!r}: the least factor comes first, and the most one must be above it")
