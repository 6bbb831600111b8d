"""Training losses as pure functions."""

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
