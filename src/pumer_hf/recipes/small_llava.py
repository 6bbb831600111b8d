"""A small LLaVA from scratch, of transformers' own classes, and its processor."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import nn
from torch.nn import functional
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

IMAGE, PAD, UNKNOWN, BEGIN, END = "<image>", "<pad>", "<unk>", "<s>", "</s>"
TEXT_LENGTH = 32
"""Room for the words of a prompt and of its answer, in tokens."""


def new_llava(
    vision: Mapping[str, Any], text: Mapping[str, Any], texts: Sequence[str], mean: float, std: float
) -> tuple[LlavaForConditionalGeneration, LlavaProcessor]:
    """Make a LLaVA with random weights, and its processor.

    Args:
        vision: fields of the [`~transformers.CLIPVisionConfig`] of the image tower.
        text: fields of the [`~transformers.LlamaConfig`] of the decoder.
        texts: questions and answers. The vocabulary has their words.
        mean: mean of the pixels in each channel, in [0, 1], to normalise with.
        std: standard deviation of the pixels in each channel, above 0, to normalise with.
    """
    tower = CLIPVisionConfig(**vision)
    tokenizer = word_tokenizer(texts)
    processor = LlavaProcessor(
        CLIPImageProcessorPil(
            size={"height": tower.image_size, "width": tower.image_size},
            do_center_crop=False,
            image_mean=[mean] * 3,
            image_std=[std] * 3,
        ),
        tokenizer,
        patch_size=tower.patch_size,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,  # the [CLS] of the tower, which the strategy drops
        image_token=IMAGE,
    )
    num_patches = (tower.image_size // tower.patch_size) ** 2
    special = {
        "vocab_size": len(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "max_position_embeddings": num_patches + TEXT_LENGTH,
    }
    config = LlavaConfig(
        vision_config=tower,
        text_config=LlamaConfig(**{**special, **text}),
        image_token_index=tokenizer.convert_tokens_to_ids(IMAGE),
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        image_seq_length=num_patches,
    )
    return LlavaForConditionalGeneration(config), processor


def resize_llava(model: LlavaForConditionalGeneration, processor: LlavaProcessor, image_size: int) -> None:
    """Change the side of the images of a LLaVA with a CLIP tower. Its position embeddings are interpolated.

    Args:
        model: the model, which is changed.
        processor: its processor, which is changed.
        image_size: the new side in pixels, a multiple of the patch size.

    Raises:
        ValueError: it is no multiple of the patch size, or the tower is not CLIP's.
    """
    vision = model.config.vision_config
    if vision.model_type != "clip_vision_model":
        raise ValueError(
            f"model.image_size={image_size}: the tower is {vision.model_type}, only CLIP's can be resized"
        )
    if image_size < vision.patch_size or image_size % vision.patch_size:
        raise ValueError(f"model.image_size={image_size}: must be a multiple of the patch size, {vision.patch_size}")
    embeddings = model.model.vision_tower.embeddings
    old, side = round((embeddings.num_patches) ** 0.5), image_size // vision.patch_size
    first, patches = embeddings.position_embedding.weight.data.split([1, old * old])
    grid = patches.T.reshape(1, -1, old, old)
    grid = functional.interpolate(grid, size=(side, side), mode="bicubic", align_corners=False)
    weight = torch.cat([first, grid.flatten(2).squeeze(0).T])
    embeddings.position_embedding = nn.Embedding.from_pretrained(weight, freeze=False)
    embeddings.num_patches, embeddings.num_positions = side * side, side * side + 1
    embeddings.image_size = vision.image_size = image_size
    embeddings.position_ids = torch.arange(side * side + 1).unsqueeze(0)
    model.config.image_seq_length = side * side
    text = model.config.text_config
    text.max_position_embeddings = max(text.max_position_embeddings, side * side + TEXT_LENGTH)
    processor.image_processor.size = {"height": image_size, "width": image_size}


def word_tokenizer(texts: Sequence[str]) -> PreTrainedTokenizerFast:
    """Make a tokenizer with a token for each word and each mark in `texts`, the most frequent first.

    Texts are in lower case. A prompt begins with `<s>`. The same texts always give the same vocabulary.
    """
    special = (PAD, UNKNOWN, BEGIN, END, IMAGE)
    tokenizer = Tokenizer(models.WordLevel({token: index for index, token in enumerate(special)}, UNKNOWN))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"\w+|[^\w\s]"), "removed", invert=True)
    words: Counter[str] = Counter()
    for text in texts:
        words.update(word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(text.lower()))
    ranked = sorted(words, key=lambda word: (-words[word], word))
    vocabulary = {token: index for index, token in enumerate(dict.fromkeys([*special, *ranked]))}
    tokenizer.model = models.WordLevel(vocabulary, UNKNOWN)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BEGIN} $A", special_tokens=[(BEGIN, vocabulary[BEGIN])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        unk_token=UNKNOWN,
        bos_token=BEGIN,
        eos_token=END,
        extra_special_tokens={"image_token": IMAGE},
        padding_side="left",
    )
