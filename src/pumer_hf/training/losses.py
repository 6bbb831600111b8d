"""Training losses as pure functions."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F


def distillation_loss(student_logits: Tensor, teacher_logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Knowledge distillation, KL(teacher || student), averaged over the batch (https://arxiv.org/abs/1503.02531).

    PuMer (Section 4.3) uses temperature 1; TiP's Eq. 5 writes the divergence the other way round. The factor
    `temperature ** 2` keeps the size of the gradient the same at any temperature.

    Args:
        student_logits: float (B, C): C classes, answers or retrieval candidates.
        teacher_logits: float (B, C).
        temperature: above 0; higher values compare softer distributions.

    Returns:
        Scalar in float32, at least 0.
    """
    if student_logits.shape != teacher_logits.shape:
        raise ValueError(
            f"student logits have shape {tuple(student_logits.shape)}, teacher logits {tuple(teacher_logits.shape)}: "
            "they must agree"
        )
    student = F.log_softmax(student_logits.float() / temperature, dim=-1)
    teacher = F.log_softmax(teacher_logits.float() / temperature, dim=-1)
    return F.kl_div(student, teacher, log_target=True, reduction="batchmean") * temperature**2


class Buckets(NamedTuple):
    """What a teacher says of N answer tokens: its k most probable tokens, and the rest of the vocabulary as one."""

    tokens: Tensor
    """long (N, k)."""
    log_probs: Tensor
    """float (N, k + 1), at most 0: the logs of their probabilities, and last that of the rest; -inf without a rest."""


def buckets_of(logits: Tensor, number: int) -> Buckets:
    """Return the most probable tokens, the first first, and the rest as one bucket.

    Args:
        logits: float (N, V).
        number: k, at least 1. If it is above V, it is V.
    """
    log_probs = logits.float().log_softmax(dim=-1)
    tokens = log_probs.topk(min(number, logits.shape[-1]), dim=-1).indices
    return Buckets(tokens, bucket_log_probs(log_probs, tokens))


def bucket_log_probs(log_probs: Tensor, tokens: Tensor) -> Tensor:
    """Return the logs of the probabilities of k tokens and of the rest of the vocabulary, float (N, k + 1).

    Args:
        log_probs: float (N, V).
        tokens: long (N, k).
    """
    chosen = log_probs.gather(-1, tokens)
    if tokens.shape[-1] == log_probs.shape[-1]:  # without a rest, whose gradient is not defined
        return F.pad(chosen, (0, 1), value=-torch.inf)
    rest = log_probs.scatter(-1, tokens, -torch.inf).logsumexp(dim=-1, keepdim=True)
    return torch.cat([chosen, rest], dim=-1)


def bucket_distillation_loss(student_logits: Tensor, teacher: Buckets) -> Tensor:
    """KL(teacher || student) over k tokens and the rest as one, averaged over the answer tokens, at temperature 1.

    It is at most the divergence over the whole vocabulary, and equal to it if k = V.

    Args:
        student_logits: float (N, V).
        teacher: what the teacher says of the same N answer tokens.

    Returns:
        Scalar in float32, at least 0.
    """
    number, size = student_logits.shape
    tokens, log_probs = teacher.tokens, teacher.log_probs.float()
    if len(tokens) != number or bool((tokens >= size).any()):
        raise ValueError(
            f"student logits have shape {(number, size)}, but the teacher speaks of {len(tokens)} answer tokens and "
            f"of token {int(tokens.max())}: they must agree"
        )
    student = bucket_log_probs(student_logits.float().log_softmax(dim=-1), tokens)
    empty = log_probs == -torch.inf  # of probability 0, which adds nothing
    student, log_probs = student.masked_fill(empty, 0.0), log_probs.masked_fill(empty, 0.0)
    return F.kl_div(student, log_probs, log_target=True, reduction="batchmean")


def total_loss(terms: dict[str, Tensor], alpha: float) -> Tensor:
    """Return task loss + alpha * distillation loss + the method's auxiliary losses. Missing terms count as 0.

    Args:
        terms: scalars by name: `task_loss`, `distillation_loss`, and auxiliary losses, which are already weighted.
        alpha: weight of the distillation loss, at least 0.
    """
    weights = {"distillation_loss": alpha}
    return torch.stack([weights.get(name, 1.0) * term for name, term in terms.items()]).sum()


def reward_loss(log_probability: Tensor, reward: Tensor, num_draws: int) -> Tensor:
    """The loss of REINFORCE with the other draws as the baseline (https://openreview.net/forum?id=r1lgTGL5DE).

    Its gradient makes draws more probable whose reward is higher than that of the other draws of the same example.

    Args:
        log_probability: float (B * num_draws,), the log of the probability of each draw; those of an example stand
            together.
        reward: float (B * num_draws,), what each draw has earned.
        num_draws: draws per example, at least 2.

    Returns:
        Scalar, the mean over all draws. Its value says nothing; it is of any sign.
    """
    reward = reward.float().unflatten(0, (-1, num_draws))
    baseline = (reward.sum(dim=1, keepdim=True) - reward) / (num_draws - 1)
    return -((reward - baseline).flatten() * log_probability).mean()


def attention_loss(scores: Tensor, attention: Tensor, mask: Tensor) -> Tensor:
    """KL(attention || softmax of the scores), averaged over the batch: the loss of the scorer of `lookahead`.

    Args:
        scores: float (B, P), the scores of the patches.
        attention: float (B, P), the attention to predict. It sums to 1 over the real patches.
        mask: bool (B, P), True for real patches. Padding does not count.

    Returns:
        Scalar in float32, at least 0.
    """
    if not scores.shape == attention.shape == mask.shape:
        raise ValueError(
            f"scores have shape {tuple(scores.shape)}, attention {tuple(attention.shape)}, mask {tuple(mask.shape)}: "
            "they must agree"
        )
    predicted = scores.float().masked_fill(~mask, -torch.inf).log_softmax(dim=-1).masked_fill(~mask, 0.0)
    return F.kl_div(predicted, attention.float().masked_fill(~mask, 0.0), reduction="batchmean")
