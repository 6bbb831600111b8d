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


CHAT_TEMPLATE = (
    "{% for message in messages %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image> {% endif %}{% endfor %}{{ message['role'] }}: "
    "{% for part in message['content'] %}{% if part['type'] == 'text' %}{{ part['text'] }} {% endif %}{% endfor %}"
    "{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
)
"""A template that makes `<image> user: red? assistant:` of a question about an image."""


def save_tiny_llava(folder, chat_template=None, texts=(), num_layers=2):
    """Save the model, whose images have 36 tokens, and its processor.

    `texts`: further words that it knows. `num_layers`: layers of its decoder.
    """
    text = {**TEXT, "num_hidden_layers": num_layers}
    model, processor = new_llava(VISION, text, ["user: what digit is red? assistant: seven", *texts], 0.5, 0.5)
    processor.chat_template = chat_template
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return Path(folder)
