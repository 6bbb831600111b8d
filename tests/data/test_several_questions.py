"""Several questions in one row: the loss and the gradients are those of single rows."""

import pytest
import torch
from datasets import Dataset, Image

from pumer_hf.data.chat import ChatCollator
from pumer_hf.data.scenes.digits import digit_scenes
from pumer_hf.data.several_questions import GroupedRows, SeveralQuestionsCollator, group_by_image
from pumer_hf.recipes.small_llava import new_llava
from pumer_hf.training.items import AnswerItems
from pumer_hf.training.losses import buckets_of
from pumer_hf.training.teacher_logits import add_teacher_logits

VISION = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 48,
    "patch_size": 8,
}
TEXT = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}


@pytest.fixture(scope="module")
def rows():
    return digit_scenes("train", 3, questions_per_scene=3).cast_column("image", Image(decode=False))


@pytest.fixture(scope="module")
def small(rows):
    torch.manual_seed(0)
    model, processor = new_llava(
        {**VISION, "initializer_range": 0.3},
        {**TEXT, "initializer_range": 0.3},
        [*rows["question"], *rows["answer"]],
        0,
        1,
    )
    return model.eval(), ChatCollator(processor, with_answers=True)


def gradients(model, batch):
    model.zero_grad()
    loss = model(**batch).loss
    loss.backward()
    return loss.detach(), [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("most", [2, 3])
def test_the_loss_and_the_gradients_are_those_of_single_rows(rows, small, attention, most):
    model, collator = small
    model.set_attn_implementation(attention)
    grouped = GroupedRows(rows, most)
    batch = SeveralQuestionsCollator(collator)([grouped[index] for index in range(len(grouped))])
    assert len(batch["input_ids"]) == 3 * -(-3 // most)
    loss, found = gradients(model, batch)
    expected, wanted = gradients(model, collator(list(rows)))
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)


def test_only_rows_that_follow_each_other_share_an_image():
    rows = Dataset.from_dict({"image": ["a", "a", "a", "b", "a"], "question": ["?"] * 5})
    assert group_by_image(rows, 2) == [[0, 1], [2], [3], [4]]


def test_what_a_teacher_said_is_in_the_order_of_the_answers_of_a_row(rows, small, tmp_path):
    model, collator = small
    said = add_teacher_logits(rows, model, collator, cache_dir=tmp_path, batch_size=4, top_k=3)
    grouped = GroupedRows(said, 2)
    batch = SeveralQuestionsCollator(collator)([grouped[index] for index in range(len(grouped))])
    items = AnswerItems()
    found = items.cached_target(batch)
    with torch.no_grad():
        logits = items.teacher_logits(model, {name: value for name, value in batch.items() if name[:7] != "teacher"})
    expected = buckets_of(logits, 3)
    assert torch.equal(found.tokens, expected.tokens)
    torch.testing.assert_close(found.log_probs, expected.log_probs, rtol=1e-4, atol=1e-5)
