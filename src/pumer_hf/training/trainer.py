"""`DistillationTrainer`: a `Trainer` that adds a distillation loss, and counts every example or answer token once."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import PreTrainedModel, ProcessorMixin, TrainingArguments
from transformers.utils import logging

from ..data.chat import ChatCollator
from ..data.collator import Collator
from ..encoding import with_record
from ..hub.trainer import HubTrainer
from ..models.decoders.images import ImageTrace
from ..models.decoders.modeling import ReducedDecoder
from ..models.encoders.heads import ClassifierHead, soft_target_loss
from ..models.families import DECODERS
from ..models.reduced import is_decoder_model
from ..models.reducible import ReducibleModel, reducible_model
from ..tokens import LayerTrace
from .arguments import DistillationTrainingArguments
from .checkpoints import SavedNames
from .items import AnswerItems, Target, batch_size_of, check_unreduced, items_of
from .losses import total_loss
from .parameters import PART_RATES, check_rates, parameter_groups
from .placement import adapted_model, as_base, place_teacher
from .timing import TimedCheckpointCallback

logger = logging.get_logger(__name__)
BASE = "base"
"""The teacher that is the trained model itself, without its adapters."""


class DistillationTrainer(SavedNames, HubTrainer):
    """Trains `model` on its task loss plus `args.alpha` times the KL divergence to a teacher (PuMer, Section 4.3).

    The loss of a step is the mean over all its examples; for a decoder, over all its answer tokens, as in
    transformers. Gradient accumulation, several processes and a short last batch do not change it. Each term is logged
    with `loss`. The auxiliary losses of a method are means over examples in
    encoders. In decoders they are means over the images of a batch, or over its prompts inside the decoder.

    Args:
        teacher: the unreduced model, with the same labels or the same vocabulary. The trainer freezes it, puts it into
            eval mode, and moves it to its device ([`place_teacher`]). It is never optimised or saved. `"base"` is
            `model` itself without its adapters of peft, unreduced, which needs no memory of its own. Without a
            teacher, and without what it said in the dataset, there is only the task loss.
        args: [`DistillationTrainingArguments`].
        eval_collator: data collator of evaluation and prediction; default: that of training.
        compute_loss_func: replaces the model's own loss. It gets the arguments that `Trainer` gives:
            `(outputs, labels, num_items_in_batch=n)`. It returns the sum of its loss over the batch, divided by `n`.
            In training, `n` is the number of examples or answer tokens of the step, in all batches and processes. In
            evaluation, it is that of the batch. A decoder's labels are in the order of its logits, which are fewer if
            its prompts are cut. The distillation loss is added to the result.

    The other arguments are those of `Trainer`. `processing_class` is saved with the model. If `data_collator` is a
    [`Collator`] or a [`ChatCollator`], the default is its processor; with a [`Collator`], a given processor is saved
    with a record of how it makes inputs. `args.label_smoothing_factor` is for labels that are classes or tokens.
    Batches may hold what a teacher said in advance ([`add_teacher_logits`]), which then takes the teacher's place.
    """

    args: DistillationTrainingArguments
    teacher: nn.Module | str | None
    """The teacher at its place, [`BASE`], or None."""
    data_collator: Callable[[list], dict[str, Tensor]]
    _signature_columns: list[str] | None
    optimizer_cls_and_kwargs: tuple[type[torch.optim.Optimizer], dict[str, Any]] | None
    # `compute_loss` returns a mean that the Trainer still has to divide by the number of accumulation steps.
    loss_is_scaled_for_ga = False

    def __init__(
        self,
        model: PreTrainedModel | None = None,
        *,
        teacher: PreTrainedModel | Literal["base"] | None = None,
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
        elif isinstance(collator, ChatCollator) and kwargs.get("processing_class") is None:
            kwargs["processing_class"] = collator.processor
        super().__init__(model, **kwargs)
        self.items = items_of(student_of(self.model))
        self._check_arguments(kwargs)
        self.model_accepts_loss_kwargs = False
        self.eval_collator = eval_collator
        self._place_teacher(teacher)
        self._examples_in_step: Tensor | None = None
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
        model = student_of(self.model)
        check_label_smoothing(self.args, model)
        check_rates(self.args, model)
        if isinstance(model, ReducedDecoder) and self.compute_metrics is not None:
            raise ValueError(
                "compute_metrics: a decoder's answers are generated, and its logits at the answers of the data do not "
                "say what it answers: leave it out, and evaluate with `recipes.generating.generated_answers`"
            )
        warn_of_frozen(model)
        optimizers = ("optimizers", (None, None)), ("optimizer_cls_and_kwargs", None)
        for name, default in optimizers:
            for rate in PART_RATES:
                if given.get(name, default) != default and getattr(self.args, rate) is not None:
                    raise ValueError(f"{rate}={getattr(self.args, rate)}: has no effect with {name}=; leave out one")

    def _place_teacher(self, teacher: PreTrainedModel | Literal["base"] | None) -> None:
        """Check the teacher and make it ready."""
        if isinstance(teacher, str):
            if teacher != BASE:
                raise ValueError(f"teacher={teacher!r}: give a model, or {BASE!r}")
            if self.args.shard_teacher:
                raise ValueError(f"shard_teacher=True: has no effect with teacher={BASE!r}, which is the model itself")
            adapted_model(self.model)
            self.teacher = BASE
        elif teacher is not None:
            check_teacher(teacher, self.model)
            teacher.requires_grad_(False).eval()
            self.teacher = place_teacher(teacher, self.accelerator, self.args.shard_teacher)

    def call_model_init(self, trial: Any = None) -> PreTrainedModel:
        model = super().call_model_init(trial)
        if isinstance(self.teacher, nn.Module):
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
            self._signature_columns = [*(self._signature_columns or ()), *self.items.cached]

    def get_batch_samples(
        self, epoch_iterator: Iterator, num_batches: int, device: torch.device
    ) -> tuple[list[dict[str, Tensor]], Tensor | None]:
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        self._steps_since_log += 1
        counts = torch.zeros(2, device=device)
        for batch in batches:
            counts += torch.tensor([float(self.items.count(batch)), batch_size_of(batch)], device=device)
        counts = self.accelerator.reduce(counts, reduction="sum")
        self._examples_in_step = counts[1]
        return batches, counts[0]

    def compute_loss(
        self,
        model: PreTrainedModel,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | None = None,
    ) -> Tensor | tuple[Tensor, Any]:
        batch, size = inputs, self.items.count(inputs)
        inputs = {name: value for name, value in batch.items() if name not in self.items.cached}
        target = self._target(model, batch, inputs) if model.training else None
        labels = inputs.get("labels")
        if self.task_loss_func is not None and not isinstance(self.items, AnswerItems):
            inputs.pop("labels", None)  # they may be others than the model takes
        outputs = model(**inputs)
        labels = self.items.labels(outputs, labels)
        num_items = num_items_in_batch if model.training else None  # of the whole step; None: only this batch counts
        terms = {"task_loss": self._task_loss(outputs, labels, size, size if num_items is None else num_items)}
        if target is not None:
            terms["distillation_loss"] = self.items.distillation_loss(outputs, labels, target, self.args.temperature)
        if model.training:
            terms |= self._auxiliary_losses(outputs, batch_size_of(batch) / size, num_items)
        loss = total_loss(terms, self.args.alpha)
        if num_items is not None:
            # Turn the mean over this batch into its share of the mean over the step. The Trainer divides by the number
            # of accumulation steps, and averages over processes.
            share = size * self.accelerator.num_processes / num_items
            self._add_terms(terms, share)
            loss = loss * share * self.current_gradient_accumulation_steps
        return (loss, outputs) if return_outputs else loss

    def _task_loss(self, outputs: Any, labels: Tensor | None, size: Tensor | int, num_items: Tensor | int) -> Tensor:
        """The mean of the task loss over a batch of `size` items; its step has `num_items` items."""
        if self.task_loss_func is not None:
            return self.task_loss_func(outputs, labels, num_items_in_batch=num_items) * (num_items / size)
        if outputs.loss is None or labels is None:
            raise ValueError("the batch has no labels: the data collator must return them under 'labels'")
        if self.args.label_smoothing_factor:
            return self.items.smoothed_loss(outputs, labels, self.args.label_smoothing_factor)
        return outputs.loss

    def _auxiliary_losses(self, outputs: Any, density: Tensor | float, num_items: Tensor | None) -> dict[str, Tensor]:
        """The auxiliary losses, weighted so that the share of a batch in a step makes means over examples of them.

        Args:
            outputs: the output of the model.
            density: examples per item in the batch.
            num_items: the items of the step; None if the batch stands alone.
        """
        losses = auxiliary_losses(outputs.get("reduction"))
        if num_items is None or self._examples_in_step is None:
            return losses
        weight = density * num_items / self._examples_in_step
        return {name: loss * weight for name, loss in losses.items()}

    @torch.no_grad()
    def _target(self, model: nn.Module, batch: dict[str, Tensor], inputs: dict[str, Tensor]) -> Target | None:
        """What the teacher says of a batch; None without a teacher. It runs first, when no states are in memory."""
        target = self.items.cached_target(batch)
        if target is not None or self.teacher is None:
            return target
        with self.accelerator.autocast():
            if isinstance(self.teacher, nn.Module):
                return self.items.teacher_logits(self.teacher, inputs)
            with as_base(model):
                return self.items.teacher_logits(model, inputs)

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
        inputs = {name: value for name, value in inputs.items() if name not in self.items.cached}
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


def student_of(model: nn.Module) -> ReducibleModel:
    """Return the model of this package in `model`, which may be a wrapper around it.

    Raises:
        ValueError: there is none, or it is a decoder of transformers' own class.
    """
    for module in model.modules():
        for row in DECODERS.values():
            if isinstance(module, row.stock_class) and not isinstance(module, ReducibleModel):
                raise ValueError(
                    f"model: {row.stock_class.__name__} is transformers' own class: load it as "
                    f"{row.model_class.__name__}, which is the same model and can reduce tokens"
                )
    return reducible_model(model)


def check_teacher(teacher: PreTrainedModel, model: PreTrainedModel) -> None:
    """Raise `ValueError` unless `teacher` is another model with the same labels, or the same vocabulary."""
    if teacher is model:
        raise ValueError("teacher and model are the same object: load the teacher a second time")
    if is_decoder_model(teacher) != is_decoder_model(model):
        raise ValueError(
            f"teacher: a {type(teacher).__name__} cannot teach a {type(model).__name__}: one is a decoder, which "
            "answers in words, and the other an encoder"
        )
    if is_decoder_model(teacher):
        check_teacher_of_decoder(teacher, model)
    elif teacher.config.id2label != model.config.id2label:
        raise ValueError(
            f"teacher and model must have the same labels in the same order, but teacher.config.id2label has "
            f"{len(teacher.config.id2label)} entries and model.config.id2label has {len(model.config.id2label)}, or "
            "they differ in order"
        )


def check_teacher_of_decoder(teacher: PreTrainedModel, model: PreTrainedModel) -> None:
    """Raise `ValueError` unless the teacher of a decoder has its vocabulary and reduces no tokens."""
    sizes = [one.config.get_text_config().vocab_size for one in (teacher, model)]
    if sizes[0] != sizes[1]:
        raise ValueError(
            f"teacher and model must have the same vocabulary, but that of the teacher has {sizes[0]} tokens and that "
            f"of the model {sizes[1]}"
        )
    check_unreduced(teacher)


def warn_of_frozen(model: ReducibleModel) -> None:
    """Warn if a method that learns with the model is frozen, as peft freezes all that is no adapter."""
    for reducer in model.token_reduction.part_reducers:
        weights = list(reducer.parameters())
        if reducer.learns and not reducer.learns_apart and weights and not any(one.requires_grad for one in weights):
            logger.warning(
                "reduction.method=%r learns with the model, but its weights are frozen, so it stays as it is. With "
                "adapters of peft, name it in LoraConfig(modules_to_save=[...]) to train it",
                reducer.config.method,
            )


def check_devices(args: TrainingArguments) -> None:
    """Raise `ValueError` if one process would train on several GPUs, where each gives a loss of its own."""
    if args.n_gpu > 1:
        raise ValueError(
            f"one process cannot train on {args.n_gpu} GPUs: start one for each with `accelerate launch`, or choose "
            "one GPU with CUDA_VISIBLE_DEVICES"
        )


def check_label_smoothing(args: TrainingArguments, model: ReducibleModel) -> None:
    """Raise `ValueError` for label smoothing if the labels are neither classes nor tokens."""
    if args.label_smoothing_factor and isinstance(model, ClassifierHead) and model.criterion is soft_target_loss:
        raise ValueError(
            f"label_smoothing_factor={args.label_smoothing_factor}: it is for labels that are classes, but those of "
            f"{type(model).__name__} say how right each answer is; set it to 0"
        )


def auxiliary_losses(reduction: Sequence[LayerTrace | ImageTrace] | None) -> dict[str, Tensor]:
    """Return the auxiliary losses of a reduction method, each averaged over the layers that report it.

    Args:
        reduction: the traces of a forward; None or empty if it reduced nothing.
    """
    values: dict[str, list[Tensor]] = {}
    for trace in reduction or ():
        for name, loss in trace.losses.items():
            values.setdefault(name, []).append(loss)
    return {name: torch.stack(losses).mean() for name, losses in values.items()}
