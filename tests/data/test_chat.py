"""The collator of decoder models: prompts for `generate`, and prompts with answers for training."""

import pytest
import torch
from PIL import Image

from pumer_hf.data.chat import IGNORED, ChatCollator, answer_of
from pumer_hf.recipes.small_llava import new_llava

VISION = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 8,
}
TEXT = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
ROWS = [
    {"image": Image.new("RGB", (16, 16), "red"), "question": "What colour is it?", "answer": "red"},
    {"image": Image.new("RGB", (16, 16), "blue"), "question": "is it blue?", "answers": ["no", "yes", "yes"]},
]


@pytest.fixture(scope="module")
def small():
    torch.manual_seed(0)
    return new_llava(VISION, TEXT, ["what colour is it?", "is it blue?", "red", "no", "yes"], 0.5, 0.5)


def test_prompts_have_the_image_first_and_end_together(small):
    _, processor = small
    batch = ChatCollator(processor)(ROWS)
    tokens = [processor.tokenizer.convert_ids_to_tokens(row) for row in batch["input_ids"].tolist()]
    image = ["<image>"] * 4
    assert tokens[0] == ["<s>", *image, "what", "colour", "is", "it", "?"]
    assert tokens[1] == ["<pad>", "<s>", *image, "is", "it", "blue", "?"]
    assert batch["attention_mask"].tolist() == [[1] * 10, [0] + [1] * 9]
    assert batch["pixel_values"].shape == (2, 3, 16, 16)
    assert "labels" not in batch


def test_only_answers_and_their_ends_have_labels(small):
    model, processor = small
    batch = ChatCollator(processor, with_answers=True)(ROWS)
    labelled = [row[row != IGNORED] for row in batch["labels"]]
    assert [processor.tokenizer.convert_ids_to_tokens(row.tolist()) for row in labelled] == [
        ["red", "</s>"],
        ["yes", "</s>"],
    ]
    assert batch["attention_mask"].tolist() == [[1] * 12, [1] * 11 + [0]]
    assert (batch["input_ids"] == batch["labels"])[batch["labels"] != IGNORED].all()
    assert batch["input_ids"][1, -1] == processor.tokenizer.pad_token_id
    model(**batch).loss.backward()


def test_the_loss_is_that_of_the_answers(small):
    model, processor = small
    batch = ChatCollator(processor, with_answers=True)(ROWS[:1])
    with torch.no_grad():
        outputs = model(**batch)
    logs = outputs.logits.log_softmax(-1)[0, -3:-1]
    expected = -logs.gather(1, batch["labels"][0, -2:].unsqueeze(1)).mean()
    torch.testing.assert_close(outputs.loss, expected)


def test_a_chat_template_writes_the_prompt(small):
    _, processor = small
    processor.chat_template = (
        "<s>{% for turn in messages %}{{ turn.role }} : {% for part in turn.content %}"
        "{{ '<image>' if part.type == 'image' else part.text }}{% endfor %}{% endfor %} model :"
    )
    try:
        batch = ChatCollator(processor)(ROWS[:1])
    finally:
        processor.chat_template = None
    ids = batch["input_ids"][0]
    assert (ids == processor.tokenizer.bos_token_id).sum() == 1
    assert (ids == processor.image_token_id).sum() == 4
    assert processor.tokenizer.decode(ids[-3:-1]) == "? <unk>"  # "model" is no word of its vocabulary


def test_several_images_stand_before_the_question(small):
    _, processor = small
    row = {"images": [ROWS[0]["image"], ROWS[1]["image"]], "question": "is it blue?", "answer": "yes"}
    batch = ChatCollator(processor)([row])
    assert batch["pixel_values"].shape[0] == 2
    assert (batch["input_ids"] == processor.image_token_id).sum() == 8


def test_maps_are_in_the_order_of_the_image_tokens(small):
    _, processor = small
    rows = [{**ROWS[0], "boxes": [[0.5, 0.0, 1.0, 0.5]]}, {**ROWS[1], "boxes": [[0.0, 0.5, 0.5, 1.0]]}]
    maps = ChatCollator(processor, saliency_side=2)(rows)["image_saliency"].view(2, 4)
    assert maps.argmax(dim=1).tolist() == [1, 2]


def test_a_prompt_with_more_placeholders_than_images_is_named(small):
    _, processor = small
    row = {**ROWS[0], "question": "<image> is it blue?", "origin": "line 3"}
    with pytest.raises(ValueError, match="line 3: its prompt has 2 <image> for 1 images"):
        ChatCollator(processor)([row])


def test_the_answer_of_most_annotators_counts():
    assert answer_of({"answers": ["a", "b", "b"]}) == "b"
    assert answer_of({"answers": ["a", "b", "c"], "answer_weights": [0.3, 0.3, 1.0]}) == "c"


@pytest.mark.parametrize(
    ("row", "end_token", "message"),
    [
        ({"question": "is it blue?", "answer": "no"}, None, "`image`"),
        ({"question": "is it blue?", "image": ROWS[0]["image"]}, None, "`answers`"),
        (ROWS[0], "<end_of_turn>", "end_token='<end_of_turn>'"),
    ],
)
def test_what_is_missing_is_named(small, row, end_token, message):
    _, processor = small
    with pytest.raises(ValueError, match=message):
        ChatCollator(processor, with_answers=True, end_token=end_token)([row])
