"""A tiny untrained Qwen2.5-VL of transformers' own class, with its processor, as a folder."""

from pathlib import Path

from transformers import (
    AutoProcessor,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
    ProcessorMixin,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessorPil,
)

from pumer_hf.recipes.small_llava import word_tokenizer

SPECIAL = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
VISION = {
    "depth": 2,
    "hidden_size": 16,
    "num_heads": 2,
    "intermediate_size": 16,
    "out_hidden_size": 16,
    "patch_size": 4,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "fullatt_block_indexes": [1],
    "window_size": 16,
}
TEXT = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1]},
}
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }}: {% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
"""A template that makes `user: IMAGE red? assistant:` of a question about an image."""


class PictureProcessor(Qwen2_5_VLProcessor):
    """Qwen2.5-VL's processor without its part for videos, which needs torchvision."""

    def __init__(self, image_processor=None, tokenizer=None, chat_template=None, **kwargs):
        self.image_token, self.video_token = SPECIAL[2:]
        self.image_token_id, self.video_token_id = tokenizer.convert_tokens_to_ids(list(SPECIAL[2:]))
        ProcessorMixin.__init__(self, image_processor, tokenizer, chat_template=chat_template)


class PictureConfig(PreTrainedConfig):
    """A config that stands for nothing but the processor, so that a saved one can be loaded."""

    model_type = "tiny_qwen_pictures"


AutoProcessor.register(PictureConfig, PictureProcessor, exist_ok=True)


def qwen_tokenizer(texts) -> PreTrainedTokenizerFast:
    """Make a tokenizer with the words of texts, and the tokens of Qwen2.5-VL for pictures."""
    tokenizer = word_tokenizer(["user: assistant:", *texts])
    tokenizer.add_special_tokens({"additional_special_tokens": list(SPECIAL)}, replace_extra_special_tokens=False)
    return tokenizer


def save_tiny_qwen(folder, texts=()):
    """Save the model and its processor. An image of 48 x 48 pixels has 36 tokens."""
    tokenizer = qwen_tokenizer(texts)
    sizes = {"patch_size": 4, "merge_size": 2, "temporal_patch_size": 2}
    limits = {"size": {"shortest_edge": 256, "longest_edge": 4096}}
    processor = PictureProcessor(Qwen2VLImageProcessorPil(**sizes, **limits), tokenizer, chat_template=CHAT_TEMPLATE)
    start, end, image, video = tokenizer.convert_tokens_to_ids(list(SPECIAL))
    known = {"vocab_size": len(tokenizer), "max_position_embeddings": 128, "tie_word_embeddings": False}
    config = Qwen2_5_VLConfig(
        vision_config=VISION,
        text_config={
            **TEXT,
            **known,
            "pad_token_id": tokenizer.pad_token_id,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
        },
        vision_start_token_id=start,
        vision_end_token_id=end,
        image_token_id=image,
        video_token_id=video,
    )
    Qwen2_5_VLForConditionalGeneration(config).save_pretrained(folder)
    processor.save_pretrained(folder)
    return Path(folder)
