"""What the loss of a step is a mean over: the examples of an encoder, or the answer tokens of a decoder.

An *answer token* is a token with a label other than -100. The logits at the token before it predict it. As in
transformers' own loss, a label in the first column of a batch has nothing before it, and does not count.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..data.chat import TEACHER_LOG_PROBS, TEACHER_TOKENS
from ..models.decoders.modeling import ReducedDecoder
from ..models.decoders.prompt import IGNORED
from ..models.reducible import ReducibleModel, reduces_tokens
from .losses import Buckets, bucket_distillation_loss, distillation_loss

Batch = Mapping[str, Any]
Target = Tensor | Buckets
"""What the teacher says of N items: its logits, float (N, C), or its most probable tokens."""
MATRIX = 2
"""The number of dimensions of `labels` (B, L)."""


class Items(ABC):
    """What the loss of a model counts, and where the logits of each of them are."""

    cached: tuple[str, ...]
    """The names under which a batch has what the teacher said, if that was computed in advance."""

    @abstractmethod
    def count(self, batch: Batch) -> Tensor | int:
        """Return the number of items in a batch."""

    @abstractmethod
    def teacher_logits(self, teacher: nn.Module, inputs: Batch) -> Tensor:
        """Return the logits of an unreduced teacher for each item, float (N, C)."""

    @abstractmethod
    def cached_target(self, batch: Batch) -> Target | None:
        """Return what the teacher said in advance about the items of a batch; None if the batch does not have it."""

    @abstractmethod
    def labels(self, outputs: Any, labels: Tensor | None) -> Tensor | None:
        """Return labels in the order of the logits of the student.

        Args:
            outputs: the output of the student.
            labels: those of the batch.
        """

    @abstractmethod
    def smoothed_loss(self, outputs: Any, labels: Tensor, smoothing: float) -> Tensor:
        """Return the mean cross-entropy with label smoothing, a scalar.

        Args:
            outputs: the output of the student.
            labels: those of [`labels`].
            smoothing: the share of the probability that all classes get, in [0, 1].
        """

    @abstractmethod
    def distillation_loss(self, outputs: Any, labels: Tensor | None, target: Target, temperature: float) -> Tensor:
        """Return the mean divergence of the student from the teacher, a scalar.

        Args:
            outputs: the output of the student.
            labels: those of [`labels`].
            target: what the teacher says.
            temperature: see [`distillation_loss`].
        """


class ExampleItems(Items):
    """The items of an encoder: its examples. `teacher_logits` float (B, C) are what the teacher said in advance."""

    cached = ("teacher_logits",)

    def count(self, batch: Batch) -> int:
        return batch_size_of(batch)

    def teacher_logits(self, teacher: nn.Module, inputs: Batch) -> Tensor:
        return teacher(**{name: value for name, value in inputs.items() if name != "labels"}).logits

    def cached_target(self, batch: Batch) -> Tensor | None:
        return batch.get("teacher_logits")

    def labels(self, outputs: Any, labels: Tensor | None) -> Tensor | None:
        return labels

    def smoothed_loss(self, outputs: Any, labels: Tensor, smoothing: float) -> Tensor:
        return F.cross_entropy(outputs.logits.float(), labels, label_smoothing=smoothing)

    def distillation_loss(self, outputs: Any, labels: Tensor | None, target: Target, temperature: float) -> Tensor:
        assert isinstance(target, Tensor), "as `cached_target` and `teacher_logits` return it"
        return distillation_loss(outputs.logits, target, temperature)


class AnswerItems(Items):
    """The items of a decoder: its answer tokens, row by row and from left to right.

    A student whose prompts are cut has the same answer tokens as its teacher, in other columns.
    """

    cached = (TEACHER_TOKENS, TEACHER_LOG_PROBS)

    def count(self, batch: Batch) -> Tensor:
        labels = batch.get("labels")
        if labels is None or labels.ndim != MATRIX:
            raise ValueError(
                "the batch has no labels: the data collator must return them under 'labels', long (B, L), -100 "
                "but for the tokens of the answers, as ChatCollator(processor, with_answers=True) does"
            )
        number = is_answer(labels).sum()
        if not bool(number):
            raise ValueError("labels: the batch has no answer token: each is -100, so there is nothing to learn")
        return number

    def teacher_logits(self, teacher: nn.Module, inputs: Batch) -> Tensor:
        rows, places = is_answer(inputs["labels"]).nonzero(as_tuple=True)
        columns, index = places.unique(return_inverse=True)
        given = {name: value for name, value in inputs.items() if name not in ("labels", "image_saliency")}
        # of the vocabulary, only the logits that are needed
        logits = teacher(**given, logits_to_keep=columns).logits
        return logits[rows.to(logits.device), index.to(logits.device)]

    def cached_target(self, batch: Batch) -> Buckets | None:
        tokens, log_probs = batch.get(TEACHER_TOKENS), batch.get(TEACHER_LOG_PROBS)
        if tokens is None or log_probs is None:
            return None
        known, answers = (tokens[..., 0] >= 0).sum(dim=1), is_answer(batch["labels"]).sum(dim=1)
        if not torch.equal(known, answers):
            raise ValueError(
                f"{TEACHER_TOKENS}: for {known.tolist()} answer tokens, but the labels of the rows have "
                f"{answers.tolist()}: compute them with the collator of the training"
            )
        real = tokens[..., 0] >= 0
        return Buckets(tokens[real], log_probs[real])

    def labels(self, outputs: Any, labels: Tensor | None) -> Tensor | None:
        return outputs.get("labels", labels)

    def smoothed_loss(self, outputs: Any, labels: Tensor, smoothing: float) -> Tensor:
        targets = labels[:, 1:][is_answer(labels)]
        logits = answer_logits(outputs.logits, labels).float()
        return F.cross_entropy(logits, targets.to(logits.device), label_smoothing=smoothing)

    def distillation_loss(self, outputs: Any, labels: Tensor | None, target: Target, temperature: float) -> Tensor:
        assert labels is not None, "`count` asks for them"
        logits = answer_logits(outputs.logits, labels)
        if isinstance(target, Tensor):
            return distillation_loss(logits, target.to(logits.device), temperature)
        if temperature != 1:
            raise ValueError(
                f"temperature={temperature}: what a teacher said in advance is known at temperature 1 alone, as the "
                "rest of the vocabulary is one bucket: set it to 1, or give the teacher as a model"
            )
        return bucket_distillation_loss(logits, target)


def items_of(model: ReducibleModel) -> Items:
    """Return what the loss of a model counts."""
    return AnswerItems() if isinstance(model, ReducedDecoder) else ExampleItems()


def check_unreduced(teacher: nn.Module) -> None:
    """Raise `ValueError` if the teacher of a decoder reduces tokens: its logits would be those of other columns."""
    if reduces_tokens(teacher):
        raise ValueError("teacher: it reduces tokens itself: call its `set_reduction(None)`")


def is_answer(labels: Tensor) -> Tensor:
    """Return which columns predict an answer token, bool (B, L - 1). `labels` is long (B, L)."""
    return labels[:, 1:] != IGNORED


def answer_logits(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the logits that predict the answer tokens, float (N, V).

    Args:
        logits: float (B, L, V).
        labels: long (B, L).
    """
    if logits.shape[:2] != labels.shape:
        raise ValueError(
            f"labels: of shape {tuple(labels.shape)}, but the logits have shape {tuple(logits.shape)}: give labels of "
            "the columns of the prompts, and leave logits_to_keep out"
        )
    return logits[:, :-1][is_answer(labels).to(logits.device)]


def batch_size_of(batch: Batch) -> int:
    """Return the number of examples of a batch."""
    # a decoder's images are in one row, whatever prompt they belong to
    known = next((name for name in ("labels", "input_ids") if name in batch), next(iter(batch)))
    return len(batch[known])
