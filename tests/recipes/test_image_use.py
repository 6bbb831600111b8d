import numpy as np
import pytest
import torch
from datasets import Dataset, Features, Image, Value
from tiny import vilt_fields
from torch import nn
from transformers.modeling_outputs import SequenceClassifierOutput

from pumer_hf.data.retrieval import RETRIEVAL
from pumer_hf.data.vqa import VQA, VqaDataArguments, load_vqa
from pumer_hf.recipes.build import build_teacher
from pumer_hf.recipes.image_use import evaluate_image_use, with_wrong_images, without_images
from pumer_hf.recipes.recipe import ModelArguments, RecipeTrainingArguments

TEXT_LENGTH = 12


def dataset_of(*pictures, columns=("image",)):
    features = Features({"number": Value("int32"), **{name: Image(decode=False) for name in columns}})
    rows = {name: [{"path": None, "bytes": picture.encode()} for picture in pictures] for name in columns}
    return Dataset.from_dict({"number": list(range(len(pictures))), **rows}, features=features)


def images_of(dataset, column="image"):
    return "".join(image["bytes"].decode() for image in dataset[column])


@pytest.mark.parametrize(("own", "wrong"), [("aabbcc", "bbccaa"), ("aba", "bab"), ("abcb", "bcac")])
def test_each_picture_is_replaced_by_the_next_other_one(own, wrong):
    changed = with_wrong_images(dataset_of(*own))
    assert images_of(changed) == wrong
    assert changed["number"][:] == list(range(len(own)))


def test_both_images_of_a_row_are_replaced_together():
    changed = with_wrong_images(dataset_of("a", "b", columns=("left", "right")))
    assert images_of(changed, "left") == images_of(changed, "right") == "ba"


def test_images_in_files_are_told_apart_by_their_paths():
    images = [{"path": path, "bytes": None} for path in ("one.png", "two.png")]
    dataset = Dataset.from_dict({"image": images}, features=Features({"image": Image(decode=False)}))
    assert [image["path"] for image in with_wrong_images(dataset)["image"]] == ["two.png", "one.png"]


def test_a_single_image_has_no_wrong_one():
    with pytest.raises(ValueError, match="2 rows have one image"):
        with_wrong_images(dataset_of("a", "a"))


def test_without_images_only_the_pixel_values_are_zero():
    batch = {"pixel_values": torch.ones(1, 3, 2, 2), "pixel_mask": torch.ones(1, 2, 2), "input_ids": torch.ones(1, 4)}
    blank = without_images(lambda rows: batch)([{}])
    assert not blank["pixel_values"].any()
    assert all((blank[name] == batch[name]).all() for name in ("pixel_mask", "input_ids"))
    assert batch["pixel_values"].all()


class ByBrightness(nn.Module):
    """Answers with the label of a picture that it knows by its pixels; a picture that it does not know has label 0."""

    def __init__(self, known, num_labels):
        super().__init__()
        self.known, self.num_labels = known, num_labels

    def forward(self, pixel_values, **_):
        labels = [self.known.get(picture.numpy().tobytes(), 0) for picture in pixel_values]
        return SequenceClassifierOutput(logits=torch.eye(self.num_labels)[labels])


def test_a_model_that_goes_by_the_image_is_wrong_without_it_and_with_another(tmp_path):
    scenes = {"train_scenes": 20, "eval_scenes": 12, "question_kinds": ["digit_by_colour"]}
    data = load_vqa(VqaDataArguments(**scenes, max_text_length=TEXT_LENGTH), labels=list(map(str, range(10))))
    config = vilt_fields(image_size=48, max_position_embeddings=TEXT_LENGTH)
    _, processor = build_teacher(ModelArguments(config=config), data.labels, data.train["question"], TEXT_LENGTH)
    collator = VQA.collator(processor, data, VqaDataArguments(max_text_length=TEXT_LENGTH), False)
    rows = data.test.select(range(0, len(data.test), 4))  # a question per picture
    data = type(data)(data.train, data.validation, rows, data.labels)
    batch = collator(list(rows))
    answers = batch["labels"].argmax(-1)
    known = {
        picture.numpy().tobytes(): int(label) for picture, label in zip(batch["pixel_values"], answers, strict=True)
    }
    args = RecipeTrainingArguments(output_dir=str(tmp_path), use_cpu=True, per_device_eval_batch_size=5)
    found = evaluate_image_use(VQA, args, ByBrightness(known, 10), data, collator)
    accuracies = {name: evaluation.metrics["accuracy"].value for name, evaluation in found.items()}
    assert accuracies == {
        "own_image": pytest.approx(100),
        "no_image": pytest.approx(100 * float((answers == 0).float().mean())),
        "wrong_image": pytest.approx(100 * float(np.mean(answers.numpy() == np.roll(answers.numpy(), -1)))),
    }
    assert accuracies["wrong_image"] < 50


def test_retrieval_has_no_such_evaluation():
    with pytest.raises(ValueError, match="task='retrieval'"):
        evaluate_image_use(RETRIEVAL, None, None, None, None)
