"""A small untrained LLaVA of transformers' own class, with its processor, as a folder."""

from pathlib import Path

from pumer_hf.recipes.small_llava import new_llava

VISION = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 48,
    "patch_size": 8,
    "projection_dim": 16,
}
TEXT = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
}


def save_tiny_llava(folder):
    """Save the model, whose images have 36 tokens, and its processor."""
    model, processor = new_llava(VISION, TEXT, ["user: what digit is red? assistant: seven"], 0.5, 0.5)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return Path(folder)
