"""Models and processors for a recipe."""

import string
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from transformers import (
    AutoProcessor,
    BertTokenizer,
    ProcessorMixin,
    RobertaTokenizer,
    ViltImageProcessorPil,
    ViltProcessor,
)
from transformers.integrations import is_deepspeed_zero3_enabled

from ..data.task import Task
from ..data.vqa import VQA
from ..encoding import EncodingRecord, with_record
from ..models.encoders.base import PuMerPreTrainedModel
from ..models.encoders.meter import PuMerMeterConfig, PuMerMeterProcessor
from ..models.encoders.vilt import PuMerViltConfig
from ..models.families import FAMILIES
from ..models.loading import load_whole, naming, saved_config
from ..reducers import AnyReduction
from .recipe import ModelArguments


def trained_backbone(flag: str, source: str, task: Task | None = None) -> tuple[str, dict[str, Any]]:
    """The backbone and the config of a saved model.

    Args:
        flag: what names the model, for messages: `"model.teacher"`.
        source: a folder or an id on the Hub.
        task: the model must have its head; None: it may have any.

    Raises:
        ValueError: there is no such model, or it is of another kind.
    """
    config = saved_config(source, f"{flag}={source!r}")
    backbone = str(config.get("model_type")).removeprefix("pumer_")
    if backbone not in FAMILIES:
        raise ValueError(
            f"{flag}={source!r}: model_type={config.get('model_type')!r} in its config.json is neither ViLT nor METER"
        )
    name = (config.get("architectures") or ["unknown"])[0]
    if task is not None and not name.endswith(task.head):
        raise ValueError(
            f"{flag}={source!r}: its class is {name}, but the task {task.name} needs a trained model with the head "
            f"{task.head}"
        )
    return backbone, config


def check_sources(args: ModelArguments, task: Task) -> None:
    """Raise `ValueError` if the teacher or the checkpoint of a recipe cannot be used; reads their configs only."""
    for name, source, needed in (("teacher", args.teacher, task), ("checkpoint", args.checkpoint, None)):
        if source is not None:
            backbone, _ = trained_backbone(f"model.{name}", source, needed)
            if backbone != args.backbone:
                raise ValueError(f"model.backbone={args.backbone!r}: model.{name}={source!r} is a model of {backbone}")


def teacher_labels(args: ModelArguments) -> list[str] | None:
    """The labels of a finetuned teacher, in order; None if the recipe trains its own."""
    if args.teacher is None:
        return None
    with naming(f"model.teacher={args.teacher!r}", args.teacher, "model"):
        names = FAMILIES[args.backbone].config_class.from_pretrained(args.teacher).id2label
    return [names[index] for index in range(len(names))]


def build_teacher(
    args: ModelArguments,
    labels: Sequence[str],
    texts: Sequence[str],
    max_text_length: int,
    task: Task = VQA,
) -> tuple[PuMerPreTrainedModel, ProcessorMixin]:
    """The unreduced model, finetuned (`args.teacher`), pretrained (`args.checkpoint`) or from scratch (`args.config`).

    Args:
        args: the `model` block.
        labels: classes or answers, in the order of the logits; none for retrieval.
        texts: the training texts, from which a model from scratch gets its vocabulary.
        max_text_length: tokens per text.
        task: which decides on the head of the model.
    """
    backbone = FAMILIES[args.backbone]
    names: dict[str, Any] = dict(task.model_config)
    if labels:
        names |= {"id2label": dict(enumerate(labels)), "label2id": {name: index for index, name in enumerate(labels)}}
    head = backbone.heads[task.head]
    if args.teacher is not None:
        model = load_model(args.teacher, None, task, flag="model.teacher")
        return model, load_processor("model.teacher", args.teacher)
    if args.checkpoint is not None:
        name = f"model.checkpoint={args.checkpoint!r}"
        with naming(name, args.checkpoint, "model"):
            model = head.from_pretrained(args.checkpoint, reduction=None, **names, ignore_mismatched_sizes=True)
        if "modality_type_vocab_size" in task.model_config:
            copy_modality_types(model, load_whole(backbone.base_class, args.checkpoint, name, reduction=None))
        return model, load_processor("model.checkpoint", args.checkpoint)
    config = backbone.config_class(**{**cast(dict, args.config or {}), **names})
    processor = NEW_PROCESSORS[args.backbone](config, args, texts, max_text_length)
    return head(config), with_record(processor, EncodingRecord(max_text_length))


def load_processor(flag: str, source: str) -> ProcessorMixin:
    """The processor of a saved model; `flag` as of [`trained_backbone`]."""
    with naming(f"{flag}={source!r}", source, "processor"):
        return AutoProcessor.from_pretrained(source, trust_remote_code=False)


@torch.no_grad()
def copy_modality_types(model: PuMerPreTrainedModel, pretrained: PuMerPreTrainedModel) -> None:
    """Give `model`, which tells more images apart, the modality embeddings of a backbone: each further image gets the
    first one's, as ViLT and METER do for NLVR2.
    """
    weights = model.base_model.state_dict()
    for name, value in pretrained.state_dict().items():
        if name.endswith("token_type_embeddings.weight") and len(weights[name]) > len(value):
            weights[name][: len(value)] = value
            weights[name][len(value) :] = value[-1]


def load_model(source: str, reduction: AnyReduction, task: Task = VQA, *, flag: str = "model") -> PuMerPreTrainedModel:
    """A model of either family that was trained for a task, with another reduction than it was saved with.

    Args:
        source: a folder or an id on the Hub.
        reduction: the schedule, or None.
        task: which the model must have the head of.
        flag: what names the model, for messages.

    Raises:
        ValueError: there is no such model, or it has another head.
    """
    backbone, _ = trained_backbone(flag, source, task)
    model = load_whole(FAMILIES[backbone].heads[task.head], source, f"{flag}={source!r}", reduction=reduction)
    if is_deepspeed_zero3_enabled():
        # transformers 5.23 takes its renamings of old checkpoints for used then, and would save `LayerNorm.gamma`.
        model._weight_conversions = None
    return model


def new_vilt_processor(
    config: PuMerViltConfig, args: ModelArguments, texts: Sequence[str], max_text_length: int
) -> ViltProcessor:
    """A processor with a vocabulary from `texts`, to which it adapts `config`."""
    max_length = max(max_text_length, config.max_position_embeddings)
    tokenizer = build_bert_tokenizer(texts, max_length)
    config.vocab_size, config.pad_token_id = len(tokenizer), tokenizer.pad_token_id
    config.max_position_embeddings = max_length
    image_processor = ViltImageProcessorPil(
        size={"shortest_edge": config.image_size},
        size_divisor=config.patch_size,
        image_mean=[args.image_mean] * config.num_channels,
        image_std=[args.image_std] * config.num_channels,
    )
    return ViltProcessor(image_processor, tokenizer)


def new_meter_processor(
    config: PuMerMeterConfig, args: ModelArguments, texts: Sequence[str], max_text_length: int
) -> PuMerMeterProcessor:
    """A processor with a vocabulary from `texts`, to which it adapts `config`."""
    text = config.text_config
    max_length = max(max_text_length, config.max_text_length)
    tokenizer = build_roberta_tokenizer(texts, max_length)
    text.vocab_size, text.pad_token_id = len(tokenizer), tokenizer.pad_token_id
    text.max_position_embeddings = max_length + text.pad_token_id + 1
    channels = config.vision_config.num_channels
    mean, std = [args.image_mean] * channels, [args.image_std] * channels
    return PuMerMeterProcessor.from_tokenizer(tokenizer, config.vision_config.image_size, mean, std)


def build_bert_tokenizer(texts: Sequence[str], max_length: int) -> BertTokenizer:
    """A BERT tokenizer that knows the words of `texts`, the most frequent first, and spells out others.

    The same texts give the same vocabulary, which training a WordPiece model does not.
    """
    special = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
    empty = BertTokenizer(vocab={token: index for index, token in enumerate(special)}).backend_tokenizer
    words: Counter[str] = Counter()
    for text in texts:
        words.update(word for word, _ in empty.pre_tokenizer.pre_tokenize_str(empty.normalizer.normalize_str(text)))
    characters = sorted({character for word in words for character in word} | set(string.ascii_lowercase))
    ranked = sorted(words, key=lambda word: (-words[word], word))
    tokens = dict.fromkeys([*special, *characters, *(f"##{character}" for character in characters), *ranked])
    return BertTokenizer(vocab={token: index for index, token in enumerate(tokens)}, model_max_length=max_length)


def build_roberta_tokenizer(texts: Sequence[str], max_length: int) -> RobertaTokenizer:
    """A RoBERTa tokenizer (byte-level BPE) whose merges are learned from `texts`."""
    special = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
    empty = RobertaTokenizer(vocab={token: index for index, token in enumerate(special)})
    tokenizer = empty.train_new_from_iterator(texts, vocab_size=30_000, show_progress=False)
    tokenizer.model_max_length = max_length
    return tokenizer


NEW_PROCESSORS: dict[str, Callable[[Any, ModelArguments, Sequence[str], int], ProcessorMixin]] = {
    "vilt": new_vilt_processor,
    "meter": new_meter_processor,
}
"""What makes the processor of a model from scratch, by backbone."""
