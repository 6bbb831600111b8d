"""`DistillationTrainer`: a `Trainer` that adds a distillation loss, and counts every example once."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import PreTrainedModel, ProcessorMixin, TrainingArguments

from ..data.collator import Collator
from ..encoding import with_record
from ..hub.trainer import HubTrainer
from ..models.encoders.base import PuMerPreTrainedModel, unwrapped
from ..models.encoders.heads import ClassifierHead, soft_target_loss
from ..tokens import LayerTrace
from .arguments import DistillationTrainingArguments
from .losses import distillation_loss, total_loss
from .parameters import parameter_groups
from .placement import place_teacher
from .timing import TimedCheckpointCallback


class DistillationTrainer(HubTrainer):
    """Trains `model` on its task loss plus `args.alpha` times the KL divergence to a teacher (PuMer, Section 4.3).

    The loss of a step is the mean over all its examples. Gradient accumulation, several processes and a short last
    batch do not change it. Each term is logged with `loss`.

    Args:
        teacher: the unreduced model, with the same labels. The trainer freezes it, puts it into eval mode, and moves
            it to its device ([`place_teacher`]). It is never optimised or saved. Without a teacher, and without
            `teacher_logits` in the dataset, there is only the task loss.
        args: [`DistillationTrainingArguments`].
        eval_collator: data collator of evaluation and prediction; default: that of training.
        compute_loss_func: replaces the model's own loss. It gets the arguments that `Trainer` gives:
            `(outputs, labels, num_items_in_batch=n)`. It returns the sum of its loss over the batch, divided by `n`.
            In training, `n` is the number of examples of the step, in all batches and processes. In evaluation, it is
            the number of examples of the batch. The distillation loss is added to the result.

    The other arguments are those of `Trainer`. `processing_class` is saved with the model. If `data_collator` is a
    [`Collator`], the default is its processor, and a given processor is saved with a record of how this collator makes
    inputs. `args.label_smoothing_factor` is for labels that are classes. Batches may hold `teacher_logits` float
    (B, C) ([`add_teacher_logits`]), which are then used instead of the teacher.
    """

    args: DistillationTrainingArguments
    teacher: nn.Module | None
    data_collator: Callable[[list], dict[str, Tensor]]
    _signature_columns: list[str] | None
    optimizer_cls_and_kwargs: tuple[type[torch.optim.Optimizer], dict[str, Any]] | None
    # `compute_loss` returns a mean that the Trainer still has to divide by the number of accumulation steps.
    loss_is_scaled_for_ga = False

    def __init__(
        self,
        model: PreTrainedModel | None = None,
        *,
        teacher: PreTrainedModel | None = None,
        eval_collator: Callable[[list], dict[str, Tensor]] | None = None,
        compute_loss_func: Callable[..., Tensor] | None = None,
        **kwargs: Any,
    ):
        self.teacher = None  # `Trainer` calls `call_model_init`, which reads it; the first model is checked below
        # Not in the attribute of `Trainer`: if that is set, some versions do not divide by the accumulation steps.
        self.task_loss_func = compute_loss_func
        collator = kwargs.get("data_collator")
        if isinstance(collator, Collator):
            kwargs["processing_class"] = recorded_processor(kwargs.get("processing_class"), collator)
        super().__init__(model, **kwargs)
        self._check_arguments(kwargs)
        self.model_accepts_loss_kwargs = False
        self.eval_collator = eval_collator
        if teacher is not None:
            check_teacher(teacher, self.model)
            teacher.requires_grad_(False).eval()
            self.teacher = place_teacher(teacher, self.accelerator, self.args.shard_teacher)
        self._term_sums: dict[str, Tensor] = {}
        self._steps_since_log = 0

    def _check_arguments(self, given: dict[str, Any]) -> None:
        """Raise `ValueError` for an argument that would have no effect."""
        if not isinstance(self.args, DistillationTrainingArguments):
            raise ValueError(f"args={type(self.args).__name__}(...): give DistillationTrainingArguments")
        check_devices(self.args)
        smoothing = self.args.label_smoothing_factor
        if smoothing and self.task_loss_func is not None:
            raise ValueError(f"label_smoothing_factor={smoothing}: compute_loss_func does not see it; set it to 0")
        check_label_smoothing(self.args, unwrapped(self.model))
        optimizers = ("optimizers", (None, None)), ("optimizer_cls_and_kwargs", None)
        for name, default in optimizers:
            for rate in ("cross_modal_learning_rate", "classifier_learning_rate"):
                if given.get(name, default) != default and getattr(self.args, rate) is not None:
                    raise ValueError(f"{rate}={getattr(self.args, rate)}: has no effect with {name}=; leave out one")

    def call_model_init(self, trial: Any = None) -> PreTrainedModel:
        model = super().call_model_init(trial)
        if self.teacher is not None:
            check_teacher(self.accelerator.unwrap_model(self.teacher), model)
        return model

    def create_optimizer(self, model: PreTrainedModel | None = None) -> torch.optim.Optimizer:
        if self.optimizer is None and self.optimizer_cls_and_kwargs is None:
            target = self.model if model is None else model
            optimizer_class, kwargs = self.get_optimizer_cls_and_kwargs(self.args, target)
            groups = parameter_groups(self.accelerator.unwrap_model(target), self.args)
            self.optimizer_cls_and_kwargs = optimizer_class, {"params": groups, **kwargs}
            try:
                return super().create_optimizer(model)
            finally:
                self.optimizer_cls_and_kwargs = None  # the next model of `model_init` has other parameters
        return super().create_optimizer(model)

    def train(self, *args: Any, **kwargs: Any) -> Any:
        self._term_sums, self._steps_since_log = {}, 0
        return super().train(*args, **kwargs)

    def get_eval_dataloader(self, *args: Any, **kwargs: Any) -> DataLoader:
        with self._collating_for_evaluation():
            return super().get_eval_dataloader(*args, **kwargs)

    def get_test_dataloader(self, *args: Any, **kwargs: Any) -> DataLoader:
        with self._collating_for_evaluation():
            return super().get_test_dataloader(*args, **kwargs)

    @contextmanager
    def _collating_for_evaluation(self) -> Iterator[None]:
        collator = self.data_collator
        self.data_collator = self.eval_collator or collator
        try:
            yield
        finally:
            self.data_collator = collator

    def _set_signature_columns_if_needed(self) -> None:
        if self._signature_columns is None:
            super()._set_signature_columns_if_needed()
            self._signature_columns = [*(self._signature_columns or ()), "teacher_logits"]

    def get_batch_samples(
        self, epoch_iterator: Iterator, num_batches: int, device: torch.device
    ) -> tuple[list[dict[str, Tensor]], Tensor | None]:
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        self._steps_since_log += 1
        num_examples = torch.tensor(float(sum(batch_size_of(batch) for batch in batches)), device=device)
        return batches, self.accelerator.reduce(num_examples, reduction="sum")

    def compute_loss(
        self,
        model: PreTrainedModel,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | None = None,
    ) -> Tensor | tuple[Tensor, Any]:
        inputs = dict(inputs)
        size = batch_size_of(inputs)
        teacher_logits = inputs.pop("teacher_logits", None)
        labels = inputs.get("labels")
        if self.task_loss_func is not None:
            inputs.pop("labels", None)  # they may be others than the model takes
        outputs = model(**inputs)
        num_items = num_items_in_batch if model.training else None  # of the whole step; None: only this batch counts
        terms = {"task_loss": self._task_loss(outputs, labels, size, size if num_items is None else num_items)}
        if model.training:
            if teacher_logits is None and self.teacher is not None:
                teacher_logits = self._logits_of(self.teacher, inputs)
            if teacher_logits is not None:
                terms["distillation_loss"] = distillation_loss(outputs.logits, teacher_logits, self.args.temperature)
            terms |= auxiliary_losses(outputs.reduction)
        loss = total_loss(terms, self.args.alpha)
        if num_items is not None:
            # Turn the mean over this batch into its share of the mean over the step. The Trainer divides by the number
            # of accumulation steps, and averages over processes.
            share = size * self.accelerator.num_processes / num_items
            self._add_terms(terms, share)
            loss = loss * share * self.current_gradient_accumulation_steps
        return (loss, outputs) if return_outputs else loss

    def _task_loss(self, outputs: Any, labels: Tensor | None, size: int, num_items: Tensor | int) -> Tensor:
        """The mean of the task loss over a batch of `size` examples; its step has `num_items` examples."""
        if self.task_loss_func is not None:
            return self.task_loss_func(outputs, labels, num_items_in_batch=num_items) * (num_items / size)
        if outputs.loss is None:
            raise ValueError("the batch has no labels: the data collator must return them under 'labels'")
        return outputs.loss if self.label_smoother is None else self.label_smoother(outputs, labels)

    @torch.no_grad()
    def _logits_of(self, teacher: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
        with self.accelerator.autocast():
            return teacher(**{name: value for name, value in inputs.items() if name != "labels"}).logits

    def _add_terms(self, terms: dict[str, Tensor], share: Tensor) -> None:
        for name, term in terms.items():
            self._term_sums[name] = self._term_sums.get(name, 0.0) + term.detach() * share

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs and self._term_sums:  # a training log: every process is here
            for name, value in self._term_sums.items():
                logs[name] = self.accelerator.reduce(value, reduction="mean").item() / self._steps_since_log
            self._term_sums, self._steps_since_log = {}, 0
        super().log(logs, start_time)

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """Push a checkpoint, unless only the clock asked for it: such a one is for resuming here, and soon removed."""
        callbacks = self.callback_handler.callbacks
        if not any(isinstance(one, TimedCheckpointCallback) and one.asked(self.state) for one in callbacks):
            super()._push_from_checkpoint(checkpoint_folder)

    def prediction_step(
        self, model: PreTrainedModel, inputs: dict[str, Tensor], *args: Any, **kwargs: Any
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        inputs = {name: value for name, value in inputs.items() if name != "teacher_logits"}
        return super().prediction_step(model, inputs, *args, **kwargs)


def recorded_processor(processing_class: Any, collator: Collator) -> Any:
    """Return what the trainer saves with the model: a processor that records how the collator makes inputs.

    Args:
        processing_class: a processor; None for the processor of the collator; anything else stays as it is.
        collator: the collator of the training rows.
    """
    if processing_class is None:
        return collator.encoder.processor
    if isinstance(processing_class, ProcessorMixin):
        return with_record(processing_class, collator.encoder.record)
    return processing_class


def check_teacher(teacher: PreTrainedModel, model: PreTrainedModel) -> None:
    """Raise `ValueError` unless `teacher` is another model with the same labels."""
    if teacher is model:
        raise ValueError("teacher and model are the same object: load the teacher a second time")
    if teacher.config.id2label != model.config.id2label:
        raise ValueError(
            f"teacher and model must have the same labels in the same order, but teacher.config.id2label has "
            f"{len(teacher.config.id2label)} entries and model.config.id2label has {len(model.config.id2label)}, or "
            "they differ in order"
        )


def check_devices(args: TrainingArguments) -> None:
    """Raise `ValueError` if one process would train on several GPUs, where each gives a loss of its own."""
    if args.n_gpu > 1:
        raise ValueError(
            f"one process cannot train on {args.n_gpu} GPUs: start one for each with `accelerate launch`, or choose "
            "one GPU with CUDA_VISIBLE_DEVICES"
        )


def check_label_smoothing(args: TrainingArguments, model: PuMerPreTrainedModel) -> None:
    """Raise `ValueError` for label smoothing if the labels are not classes."""
    if args.label_smoothing_factor and isinstance(model, ClassifierHead) and model.criterion is soft_target_loss:
        raise ValueError(
            f"label_smoothing_factor={args.label_smoothing_factor}: it is for labels that are classes, but those of "
            f"{type(model).__name__} say how right each answer is; set it to 0"
        )


def auxiliary_losses(reduction: tuple[LayerTrace, ...] | None) -> dict[str, Tensor]:
    """Return the auxiliary losses of a reduction method, each averaged over the layers that report it."""
    values: dict[str, list[Tensor]] = {}
    for trace in reduction or ():
        for name, loss in trace.losses.items():
            values.setdefault(name, []).append(loss)
    return {name: torch.stack(losses).mean() for name, losses in values.items()}


def batch_size_of(batch: dict[str, Tensor]) -> int:
    """Return the number of examples of a batch."""
    # a decoder's images are in one row, whatever prompt they belong to
    known = next((name for name in ("labels", "input_ids") if name in batch), next(iter(batch)))
    return len(batch[known])
