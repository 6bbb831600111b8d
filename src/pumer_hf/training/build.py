"""Models and processors for a recipe."""

from collections.abc import Sequence
from typing import Any, cast

from transformers import AutoProcessor, BertTokenizer, ProcessorMixin, ViltImageProcessorPil, ViltProcessor

from ..models.vilt import PuMerViltConfig, PuMerViltForQuestionAnswering
from .recipe import ModelArguments


def teacher_labels(args: ModelArguments) -> list[str] | None:
    """The labels of a finetuned teacher, in order; None if the recipe trains its own."""
    if args.teacher is None:
        return None
    return list(PuMerViltConfig.from_pretrained(args.teacher).id2label.values())


def build_teacher(
    args: ModelArguments, labels: Sequence[str], questions: Sequence[str], max_text_length: int
) -> tuple[PuMerViltForQuestionAnswering, ProcessorMixin]:
    """The unreduced model, finetuned (`args.teacher`), pretrained (`args.checkpoint`) or from scratch (`args.config`).

    Args:
        args: the `model` block.
        labels: answers, in the order of the logits.
        questions: the training questions, from which a model from scratch gets its vocabulary.
        max_text_length: tokens per question.
    """
    names = {"id2label": dict(enumerate(labels)), "label2id": {label: index for index, label in enumerate(labels)}}
    source = args.teacher or args.checkpoint
    if source is not None:
        overrides = {} if args.teacher else {**names, "ignore_mismatched_sizes": True}
        model = PuMerViltForQuestionAnswering.from_pretrained(source, reduction=None, **overrides)
        return model, AutoProcessor.from_pretrained(source)
    config = PuMerViltConfig(**{**cast(dict, args.config or {}), **names})
    tokenizer = build_tokenizer(questions, max_length=max(max_text_length, config.max_position_embeddings))
    config.vocab_size, config.pad_token_id = len(tokenizer), tokenizer.pad_token_id
    config.max_position_embeddings = tokenizer.model_max_length
    image_processor = ViltImageProcessorPil(
        size={"shortest_edge": config.image_size},
        size_divisor=config.patch_size,
        image_mean=[args.image_mean] * config.num_channels,
        image_std=[args.image_std] * config.num_channels,
    )
    return PuMerViltForQuestionAnswering(config), ViltProcessor(image_processor, tokenizer)


def load_model(source: str, reduction: dict[str, Any] | None) -> PuMerViltForQuestionAnswering:
    """A saved model, with another reduction than it was saved with."""
    return PuMerViltForQuestionAnswering.from_pretrained(source, reduction=reduction)


def build_tokenizer(texts: Sequence[str], max_length: int, vocab_size: int = 30_000) -> BertTokenizer:
    """A BERT tokenizer whose WordPiece vocabulary is learned from `texts`; it spells out words not seen there."""
    special = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
    empty = BertTokenizer(vocab={token: index for index, token in enumerate(special)})
    tokenizer = empty.train_new_from_iterator(texts, vocab_size=vocab_size, show_progress=False)
    tokenizer.model_max_length = max_length
    return tokenizer
