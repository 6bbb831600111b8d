"""A small LLaVA from scratch: its tokenizer, and another image size."""

import pytest
import torch
from PIL import Image

from pumer_hf.data.chat import ChatCollator
from pumer_hf.recipes.small_llava import new_llava, resize_llava, word_tokenizer

TINY = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
ROW = {"image": Image.new("RGB", (40, 24), "red"), "question": "is it red?", "answer": "yes"}


@pytest.fixture
def small():
    torch.manual_seed(0)
    return new_llava({**TINY, "image_size": 24, "patch_size": 8}, TINY, ["is it red?", "yes"], 0.5, 0.5)


def test_the_vocabulary_has_each_word_and_mark_once_the_most_frequent_first():
    tokenizer = word_tokenizer(["Is it red?", "red it red!"])
    assert tokenizer.convert_ids_to_tokens(range(5)) == ["<pad>", "<unk>", "<s>", "</s>", "<image>"]
    assert tokenizer.convert_ids_to_tokens(range(5, len(tokenizer))) == ["red", "it", "!", "?", "is"]
    assert tokenizer("RED, it?")["input_ids"] == [2, 5, 1, 6, 8]


@pytest.mark.parametrize("image_size", [16, 24, 40])
def test_a_resized_model_reads_and_saves_images_of_the_new_size(small, tmp_path, image_size):
    model, processor = small
    before = model.state_dict()
    resize_llava(model, processor, image_size)
    batch = ChatCollator(processor, with_answers=True)([ROW])
    assert batch["pixel_values"].shape[-2:] == (image_size, image_size)
    assert (batch["input_ids"] == processor.image_token_id).sum() == (image_size // 8) ** 2
    with torch.no_grad():
        logits = model(**batch).logits
        model.save_pretrained(tmp_path)
        torch.testing.assert_close(type(model).from_pretrained(tmp_path)(**batch).logits, logits)
    if image_size == 24:  # nothing has changed
        for name, value in model.state_dict().items():
            torch.testing.assert_close(value, before[name])


@pytest.mark.parametrize("image_size", [4, 20])
def test_a_size_that_does_not_fit_is_an_error(small, image_size):
    with pytest.raises(ValueError, match=f"model.image_size={image_size}"):
        resize_llava(*small, image_size)
