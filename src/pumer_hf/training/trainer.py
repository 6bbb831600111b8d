"""`DistillationTrainer`: a `Trainer` that adds a distillation loss, and counts every example once."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import PreTrainedModel

from ..hub.trainer import HubTrainer
from ..tokens import LayerTrace
from .arguments import DistillationTrainingArguments
from .losses import distillation_loss, total_loss
from .parameters import parameter_groups
from .placement import place_teacher


class DistillationTrainer(HubTrainer):
    """Trains `model` on its task loss plus `args.alpha` times the KL divergence to a teacher (PuMer, Section 4.3).

    The loss of a step is the mean over all its examples, whatever the batches they come in: gradient accumulation,
    several processes and a short last batch do not change it. Each term is logged beside `loss`.

    Args:
        teacher: the unreduced model, with the same labels. It is frozen, in eval mode and on the trainer's device
            ([`place_teacher`]), and never optimised or saved. Without one, and without `teacher_logits` in the
            dataset, the task loss stands alone.
        args: [`DistillationTrainingArguments`].
        eval_collator: data collator of evaluation and prediction; default: that of training.

    The other arguments are those of `Trainer`. Batches may hold `teacher_logits` float (B, C)
    ([`add_teacher_logits`]), which then take the teacher's place.
    """

    args: DistillationTrainingArguments
    data_collator: Callable[[list], dict[str, Tensor]]
    _signature_columns: list[str] | None
    optimizer_cls_and_kwargs: tuple[type[torch.optim.Optimizer], dict[str, Any]] | None
    # `compute_loss` returns a mean that the Trainer still has to divide by the number of accumulation steps.
    loss_is_scaled_for_ga = False

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        teacher: PreTrainedModel | None = None,
        eval_collator: Callable[[list], dict[str, Tensor]] | None = None,
        **kwargs: Any,
    ):
        super().__init__(model, **kwargs)
        if not isinstance(self.args, DistillationTrainingArguments):
            raise ValueError("args must be DistillationTrainingArguments")
        self.model_accepts_loss_kwargs = False
        self.eval_collator = eval_collator
        self.teacher = None if teacher is None else self._prepare_teacher(teacher)
        self._term_sums: dict[str, Tensor] = {}
        self._steps_since_log = 0

    def _prepare_teacher(self, teacher: PreTrainedModel) -> nn.Module:
        if teacher is self.model:
            raise ValueError("teacher and model are the same object: load the teacher a second time")
        if teacher.config.id2label != self.model.config.id2label:
            raise ValueError(
                f"teacher and model must have the same labels in the same order, but teacher.config.id2label has "
                f"{len(teacher.config.id2label)} entries and model.config.id2label has "
                f"{len(self.model.config.id2label)}, or they differ in order"
            )
        return place_teacher(teacher.requires_grad_(False).eval(), self.accelerator, self.args.shard_teacher)

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
        num_examples = torch.tensor(float(sum(_batch_size(batch) for batch in batches)), device=device)
        return batches, self.accelerator.reduce(num_examples, reduction="sum")

    def compute_loss(
        self,
        model: PreTrainedModel,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | None = None,
    ) -> Tensor | tuple[Tensor, Any]:
        inputs = dict(inputs)
        teacher_logits = inputs.pop("teacher_logits", None)
        outputs = model(**inputs)
        if outputs.loss is None:
            raise ValueError("the batch has no labels: the data collator must return them under 'labels'")
        terms = {"task_loss": outputs.loss}
        if model.training:
            if teacher_logits is None and self.teacher is not None:
                teacher_logits = self._logits_of(self.teacher, inputs)
            if teacher_logits is not None:
                terms["distillation_loss"] = distillation_loss(outputs.logits, teacher_logits, self.args.temperature)
            terms |= auxiliary_losses(outputs.reduction)
        loss = total_loss(terms, self.args.alpha)
        if num_items_in_batch is not None:
            # From the mean over this batch to its share in the mean over the step. The Trainer divides by the number
            # of accumulation steps, and averages over processes.
            share = _batch_size(inputs) * self.accelerator.num_processes / num_items_in_batch
            self._add_terms(terms, share)
            loss = loss * share * self.current_gradient_accumulation_steps
        return (loss, outputs) if return_outputs else loss

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

    def prediction_step(
        self, model: PreTrainedModel, inputs: dict[str, Tensor], *args: Any, **kwargs: Any
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        inputs = {name: value for name, value in inputs.items() if name != "teacher_logits"}
        return super().prediction_step(model, inputs, *args, **kwargs)


def auxiliary_losses(reduction: tuple[LayerTrace, ...] | None) -> dict[str, Tensor]:
    """The auxiliary losses of a reduction method: each name averaged over the layers that report it."""
    values: dict[str, list[Tensor]] = {}
    for trace in reduction or ():
        for name, loss in trace.losses.items():
            values.setdefault(name, []).append(loss)
    return {name: torch.stack(losses).mean() for name, losses in values.items()}


def _batch_size(batch: dict[str, Tensor]) -> int:
    return len(batch["labels"]) if "labels" in batch else len(next(iter(batch.values())))
