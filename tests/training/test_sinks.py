"""Sinks: what of the attention does not depend on the text is taken out of the target of a scorer."""

import pytest
import torch
from datasets import Dataset

from pumer_hf.training.sinks import IMAGE_GROUP, SameImageCollator, grouped, numbers_of_images, without_sinks


def by_hand(attention, image):
    found = []
    for row, own in enumerate(image):
        others = [attention[other] for other, known in enumerate(image) if known == own and other != row]
        if not others:
            found.append(attention[row])
            continue
        above = [
            max(float(value - sum(column) / len(others)), 0.0)
            for value, *column in zip(attention[row], *others, strict=True)
        ]
        found.append(torch.tensor(above) / sum(above))
    return torch.stack(found)


def test_what_is_above_the_mean_of_the_other_texts_is_left():
    torch.manual_seed(0)
    attention = torch.rand(7, 5).softmax(dim=-1)
    image = [0, 1, 0, 0, 2, 1, 0]
    found = without_sinks(attention, torch.tensor(image))
    torch.testing.assert_close(found, by_hand(attention, image))
    torch.testing.assert_close(found.sum(dim=1), torch.ones(7))
    assert torch.equal(found[4], attention[4])  # the only text of its image


def test_a_sink_is_gone_and_texts_that_attend_alike_stay():
    sink, apart = torch.tensor([1.0, 0, 0, 0]), torch.eye(4)[1:3]
    attention = 0.7 * sink + 0.3 * apart
    torch.testing.assert_close(without_sinks(attention, torch.zeros(2, dtype=torch.long)), apart)
    alike = attention[:1].expand(3, -1)
    torch.testing.assert_close(without_sinks(alike, torch.zeros(3, dtype=torch.long)), alike)


def test_each_of_several_images_is_compared_with_itself():
    """The prompts 0 and 2 have the same two images, and prompt 1 another one."""
    numbers = numbers_of_images(torch.tensor([0, 0, 1, 2, 2]), torch.tensor([0, 1, 0])).tolist()
    assert numbers[:2] == numbers[3:]
    assert len(set(numbers)) == 3


@pytest.mark.parametrize("column", ["image", "images"])
def test_batches_have_the_texts_of_an_image_together(column):
    names = ["a", "a", "a", "b", "c", "c"]
    values = names if column == "image" else [[name, "d"] for name in names]
    rows = Dataset.from_dict({column: values, "text": list("123456")})
    data, collator, size = grouped(
        rows, lambda rows: {"input_ids": torch.tensor([int(row["text"]) for row in rows])}, 4
    )
    assert isinstance(collator, SameImageCollator)
    assert (len(data), size) == (3, 2)
    batch = collator([data[0], data[2]])
    assert batch["input_ids"].tolist() == [1, 2, 3, 5, 6]
    assert batch[IMAGE_GROUP].tolist() == [0, 0, 0, 1, 1]


def test_an_image_for_each_text_is_an_error():
    with pytest.raises(ValueError, match="sinks='remove': no image"):
        grouped(Dataset.from_dict({"image": ["a", "b"]}), dict, 4)
