"""What the task heads of both model families share: the classifier, the losses, and the candidate layout of retrieval."""

from torch import Tensor, nn
from torch.nn import functional as F


def classifier_head(in_features: int, hidden_features: int, num_labels: int) -> nn.Sequential:
    """Two-layer classifier with LayerNorm and GELU."""
    return nn.Sequential(
        nn.Linear(in_features, hidden_features),
        nn.LayerNorm(hidden_features),
        nn.GELU(),
        nn.Linear(hidden_features, num_labels),
    )


def soft_target_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """VQA loss: binary cross-entropy of each label, summed over the labels and averaged over the batch.

    Args:
        logits: float (B, num_labels).
        labels: float (B, num_labels), soft targets in [0, 1]: how right each answer is.
    """
    if labels.shape != logits.shape:
        raise ValueError(
            f"labels has shape {tuple(labels.shape)}: soft targets of shape {tuple(logits.shape)} are expected"
        )
    loss = F.binary_cross_entropy_with_logits(logits.float(), labels.float(), reduction="sum")
    return loss / logits.shape[0]


def to_candidates(
    input_ids: Tensor, attention_mask: Tensor | None, pixel_values: Tensor, pixel_mask: Tensor | None
) -> tuple[Tensor, Tensor | None, Tensor, Tensor | None, int]:
    """Lay retrieval inputs out as one text and one image per candidate.

    K candidates of each of B queries come as K texts for one image (`input_ids` (B, K, Lt), `pixel_values` (B, 3, h, w)),
    K images for one text ((B, Lt) and (B, K, 3, h, w)), or K pairs ((B, K, Lt) and (B, K, 3, h, w)). Plain pairs ((B, Lt)
    and (B, 3, h, w)) have K = 1.

    Returns:
        The four inputs with batch size B * K, and K.
    """
    num_texts = input_ids.shape[1] if input_ids.ndim == 3 else 1
    num_images = pixel_values.shape[1] if pixel_values.ndim == 5 else 1
    candidates = max(num_texts, num_images)
    if num_texts not in (1, candidates) or num_images not in (1, candidates):
        raise ValueError(
            f"{num_texts} texts and {num_images} images per example: give one of either, or as many of both"
        )

    def spread(value: Tensor | None, dims: int) -> Tensor | None:
        if value is None:
            return None
        if value.ndim == dims:
            value = value.unsqueeze(1)
        return value.expand(-1, candidates, *value.shape[2:]).flatten(0, 1)

    inputs = (spread(input_ids, 2), spread(attention_mask, 2), spread(pixel_values, 4), spread(pixel_mask, 3))
    return *inputs, candidates


def validate_num_images(num_images: int, modality_type_vocab_size: int) -> None:
    """Raise `ValueError` if a config cannot tell `num_images` images of an example apart."""
    if num_images < 1:
        raise ValueError(f"config.num_images={num_images}: set it to the images per example (NLVR2: 2)")
    if modality_type_vocab_size <= num_images:
        raise ValueError(
            f"config.modality_type_vocab_size={modality_type_vocab_size} is too small for num_images={num_images}: "
            f"set it to {num_images + 1}"
        )


def split_images(pixel_values: Tensor | None, num_images: int) -> tuple[Tensor, ...]:
    """The images of each example, float (B, num_images, 3, h, w), as `num_images` batches (B, 3, h, w)."""
    if pixel_values is None or pixel_values.ndim != 5 or pixel_values.shape[1] != num_images:
        shape = None if pixel_values is None else tuple(pixel_values.shape)
        raise ValueError(f"pixel_values has shape {shape}: expected (batch, {num_images}, channels, height, width)")
    return pixel_values.unbind(dim=1)


def ranking_loss(scores: Tensor, labels: Tensor) -> Tensor:
    """Retrieval loss: cross-entropy of the matching candidate among all.

    Args:
        scores: float (B, K).
        labels: long (B,), index of the matching candidate.
    """
    if scores.shape[1] < 2:
        raise ValueError(
            "labels of retrieval say which candidate matches, so give at least two: input_ids of shape (batch, "
            "candidates, length) or pixel_values of shape (batch, candidates, 3, height, width)"
        )
    return F.cross_entropy(scores.float(), labels)


def classification_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy; `labels` long (B,)."""
    return F.cross_entropy(logits.float(), labels)
