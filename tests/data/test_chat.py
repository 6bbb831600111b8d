"""The collator of decoder models: prompts for `generate`, and prompts with answers for training."""

import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from pumer_hf.data.chat import IGNORED, TEACHER_LOG_PROBS, TEACHER_TOKENS, ChatCollator, answer_of
from pumer_hf.data.conversations import following_tokens
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
    return new_llava(
        VISION, TEXT, ["user : assistant : what colour is it?", "is it blue?", "red", "no", "yes"], 0.5, 0.5
    )


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


# Chats of several turns

PLAIN = (
    "<s>{% for turn in messages %}{{ turn.role }} : {% if turn.content is string %}{{ turn.content }} {% else %}"
    "{% for part in turn.content %}{{ '<image>' if part.type == 'image' else part.text }} {% endfor %}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}assistant : {% endif %}"
)
MARKED = PLAIN.replace("{% endif %}{% endfor %}{% if add", "{% endif %}</s> {% endfor %}{% if add")
"""The same, with the end token behind each turn."""


def text(*words):
    return [{"type": "text", "text": word, "index": None} for word in words]


CHAT = [
    {"role": "user", "content": [{"type": "image", "text": None}, *text("what colour is it?")]},
    {"role": "assistant", "content": "red"},
    {"role": "user", "content": [*text("is it blue?"), {"type": "image", "text": None}]},
    {"role": "assistant", "content": text("no", "yes")},
]
TWO_IMAGES = [ROWS[0]["image"], ROWS[1]["image"]]


@pytest.fixture
def chatting(small):
    """Gives the processor a chat template, for the time of a test."""
    _, processor = small

    def use(template):
        processor.chat_template = template
        return processor

    yield use
    processor.chat_template = None


def words_of(processor, ids):
    return processor.tokenizer.convert_ids_to_tokens(ids.tolist())


@pytest.mark.parametrize(("template", "ends"), [(PLAIN, []), (MARKED, ["</s>"])], ids=["plain", "marked"])
def test_all_that_the_assistant_says_has_labels_and_nothing_else(template, ends, small, chatting):
    model, processor = small[0], chatting(template)
    rows = [{"images": TWO_IMAGES, "messages": CHAT}, {**ROWS[0], "messages": CHAT[:2]}, ROWS[1]]
    batch = ChatCollator(processor, with_answers=True)(rows)
    labelled = [words_of(processor, row[row != IGNORED]) for row in batch["labels"]]
    assert labelled == [["red", *ends, "no", "yes", "</s>"], ["red", "</s>"], ["yes", "</s>"]]
    assert (batch["input_ids"] == batch["labels"])[batch["labels"] != IGNORED].all()
    # the tokens are those of the whole chat as the template and the processor write it
    whole = processor.apply_chat_template([{**turn, "content": plain(turn)} for turn in CHAT])
    expected = processor(images=TWO_IMAGES, text=whole, add_special_tokens=False, return_tensors="pt")["input_ids"][0]
    found = batch["input_ids"][0][batch["attention_mask"][0].bool()]
    length = len(found) - (not ends)  # without its own mark of the end, the last answer gets one
    assert words_of(processor, found[:length]) == words_of(processor, expected[:length])
    assert batch["pixel_values"].shape[0] == 4
    model(**batch).loss.backward()


def plain(turn):
    content = turn["content"]
    return content if isinstance(content, str) else [{k: v for k, v in part.items() if v} for part in content]


def test_a_chat_is_asked_up_to_its_last_answer(chatting):
    processor = chatting(PLAIN)
    asked = ChatCollator(processor)([{"images": TWO_IMAGES, "messages": CHAT}])
    up_to = ChatCollator(processor)([{"images": TWO_IMAGES, "messages": CHAT[:3]}])
    assert torch.equal(asked["input_ids"], up_to["input_ids"])
    assert words_of(processor, asked["input_ids"][0])[-3:] == ["<image>", "assistant", ":"]


def test_an_answer_of_its_own_column_follows_a_chat(chatting):
    processor = chatting(PLAIN)
    row = {"images": TWO_IMAGES, "messages": CHAT[:3], "answer": "no"}
    labels = ChatCollator(processor, with_answers=True)([row])["labels"][0]
    assert words_of(processor, labels[labels != IGNORED]) == ["no", "</s>"]


def test_a_template_that_takes_back_what_it_wrote_is_an_error(chatting):
    processor = chatting("{{ messages | length }} " + PLAIN)
    with pytest.raises(ValueError, match="line 7: messages: the chat template changes what it wrote before turn"):
        ChatCollator(processor, with_answers=True)([{"images": TWO_IMAGES, "messages": CHAT, "origin": "line 7"}])


def test_chats_without_a_template_are_an_error(small):
    with pytest.raises(ValueError, match="line 7: messages: the processor has no chat template"):
        ChatCollator(small[1], with_answers=True)([{"images": TWO_IMAGES, "messages": CHAT, "origin": "line 7"}])


def test_a_row_that_is_too_long_is_named(small):
    _, processor = small
    rows = [{**row, "origin": f"line {number}"} for number, row in enumerate(ROWS)]
    assert ChatCollator(processor, with_answers=True, max_length=12)(rows)["input_ids"].shape == (2, 12)
    with pytest.raises(ValueError, match="line 0: 12 tokens, and max_length=11"):
        ChatCollator(processor, with_answers=True, max_length=11)(rows)


def test_an_answer_has_the_tokens_that_it_has_in_its_place():
    """A byte-level tokenizer joins a space with the word behind it, and one with a prefix adds a space."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    trainer = trainers.BpeTrainer(initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), special_tokens=["<s>"])
    tokenizer.train_from_iterator(["assistant : red no yes assistant : red"] * 5, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>")

    def words(text):
        return fast.convert_ids_to_tokens(fast(text, add_special_tokens=False)["input_ids"])

    assert words("assistant: red")[-1] == "Ġred"
    assert words("ant") != ["ant"]  # alone it gets a space
    assert fast.convert_ids_to_tokens(following_tokens(fast, "assistant:", " red")) == ["Ġred"]
    assert fast.convert_ids_to_tokens(following_tokens(fast, "assistant:", "red")) == ["red"]
    assert fast.convert_ids_to_tokens(following_tokens(fast, "assist", "ant")) == words("ant")  # they share a token


@pytest.mark.parametrize("several", [1, 3])
def test_what_a_teacher_said_is_padded_to_the_longest_answer(several, small):
    _, processor = small
    answers = {TEACHER_TOKENS: [[5, 6]] * several, TEACHER_LOG_PROBS: [[-1.0, -2.0, -0.7]] * several}
    other = {TEACHER_TOKENS: [[7, 8]] * 2, TEACHER_LOG_PROBS: [[-0.5, -3.0, -1.1]] * 2}
    batch = ChatCollator(processor, with_answers=True)([{**ROWS[0], **answers}, {**ROWS[1], **other}])
    longest = max(several, 2)
    assert batch[TEACHER_TOKENS].shape == (2, longest, 2)
    assert batch[TEACHER_LOG_PROBS].shape == (2, longest, 3)
    assert (batch[TEACHER_TOKENS][:, :, 0] >= 0).sum(dim=1).tolist() == [several, 2]
