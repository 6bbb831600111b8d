"""The processor of a ViLT from scratch. ViLT's processor itself is transformers'."""

import string
from collections import Counter
from collections.abc import Sequence

from transformers import BertTokenizer, ViltImageProcessorPil, ViltProcessor

from .configuration import PuMerViltConfig


def new_vilt_processor(
    config: PuMerViltConfig, texts: Sequence[str], max_text_length: int, image_mean: float, image_std: float
) -> ViltProcessor:
    """Make a processor with a vocabulary from `texts`, and adapt `config` to it.

    Args:
        config: the config of the model.
        texts: the training texts.
        max_text_length: tokens per text. The model gets room for at least this many.
        image_mean: mean of the pixels in each channel, in [0, 1].
        image_std: standard deviation of the pixels in each channel, above 0.
    """
    max_length = max(max_text_length, config.max_position_embeddings)
    tokenizer = build_bert_tokenizer(texts, max_length)
    config.vocab_size, config.pad_token_id = len(tokenizer), tokenizer.pad_token_id
    config.max_position_embeddings = max_length
    image_processor = ViltImageProcessorPil(
        size={"shortest_edge": config.image_size},
        size_divisor=config.patch_size,
        image_mean=[image_mean] * config.num_channels,
        image_std=[image_std] * config.num_channels,
    )
    return ViltProcessor(image_processor, tokenizer)


def build_bert_tokenizer(texts: Sequence[str], max_length: int) -> BertTokenizer:
    """Make a BERT tokenizer that knows the words of `texts`, the most frequent first. It spells out other words.

    The same texts always give the same vocabulary. This does not hold for a trained WordPiece model.
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
