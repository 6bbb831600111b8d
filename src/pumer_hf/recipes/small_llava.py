"""A small LLaVA from scratch, of transformers' own classes, and its processor."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
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
