from pathlib import Path

import pytest
import torch
from datasets import Dataset

from pumer_hf.training.teacher_logits import add_teacher_logits


def collate(rows):
    """Rows of a dataset -> model inputs, as the collators of recipes do."""
    batch = {
        name: torch.tensor([row[name] for row in rows]) for name in ("input_ids", "attention_mask", "pixel_values")
    }
    if "labels" in rows[0]:
        batch["labels"] = torch.tensor([row["labels"] for row in rows])
    return batch


class CountedTeacher:
    """A teacher and how many batches it has seen."""

    def __init__(self, model):
        self.model, self.batches = model, []
        model.register_forward_pre_hook(
            lambda _, args, kwargs: self.batches.append(len(kwargs["input_ids"])), with_kwargs=True
        )


@pytest.fixture
def counted_teacher(make_teacher):
    return lambda **kwargs: CountedTeacher(make_teacher(**kwargs))


@pytest.fixture
def make_dataset(make_rows):
    def make(number, seed=0):
        rows = make_rows(number, seed)
        columns = {name: [row[name].tolist() for row in rows] for name in rows[0]}
        return Dataset.from_dict({**columns, "name": [f"row {index}" for index in range(number)]})

    return make


def logits_of(model, dataset):
    batch = collate(list(dataset))
    with torch.no_grad():
        return model.eval()(**batch).logits


def column(dataset):
    return torch.tensor(dataset["teacher_logits"][:])


def test_the_column_holds_the_logits_of_a_forward_of_each_row(counted_teacher, make_dataset, tmp_path):
    teacher, dataset = counted_teacher(), make_dataset(5)
    result = add_teacher_logits(dataset, teacher.model, collate, cache_dir=tmp_path / "new" / "cache", batch_size=2)
    assert teacher.batches == [2, 2, 1]
    torch.testing.assert_close(column(result), logits_of(teacher.model, dataset), rtol=1e-4, atol=1e-5)


def test_the_other_columns_and_the_given_dataset_stay_as_they_are(counted_teacher, make_dataset, tmp_path):
    dataset = make_dataset(3)
    result = add_teacher_logits(dataset, counted_teacher().model, collate, cache_dir=tmp_path)
    assert "teacher_logits" not in dataset.column_names
    assert result.column_names == [*dataset.column_names, "teacher_logits"]
    assert result.remove_columns("teacher_logits").to_dict() == dataset.to_dict()


def test_a_teacher_in_train_mode_is_put_into_eval_mode(counted_teacher, make_dataset, tmp_path):
    teacher, dataset = counted_teacher(hidden_dropout_prob=0.5), make_dataset(3)
    teacher.model.train()
    result = add_teacher_logits(dataset, teacher.model, collate, cache_dir=tmp_path)
    torch.testing.assert_close(column(result), logits_of(teacher.model, dataset), rtol=1e-4, atol=1e-5)


def test_a_second_call_reads_the_cache(counted_teacher, make_dataset, tmp_path):
    first = add_teacher_logits(make_dataset(4), counted_teacher().model, collate, cache_dir=tmp_path)
    again = counted_teacher()  # the same weights and data, made anew, as in another process
    second = add_teacher_logits(make_dataset(4), again.model, collate, cache_dir=tmp_path)
    assert not again.batches
    assert torch.equal(column(first), column(second))


def test_the_batch_size_does_not_matter_to_the_cache(counted_teacher, make_dataset, tmp_path):
    add_teacher_logits(make_dataset(4), counted_teacher().model, collate, cache_dir=tmp_path, batch_size=4)
    again = counted_teacher()
    add_teacher_logits(make_dataset(4), again.model, collate, cache_dir=tmp_path, batch_size=3)
    assert not again.batches


def test_another_folder_has_another_cache(counted_teacher, make_dataset, tmp_path):
    for folder in ("one", "two"):
        teacher = counted_teacher()
        add_teacher_logits(make_dataset(2), teacher.model, collate, cache_dir=tmp_path / folder)
        assert teacher.batches


def change_a_bias(teacher, dataset):
    with torch.no_grad():
        teacher.classifier[3].bias[0] += 1e-3
    return teacher, dataset, collate


def change_the_reduction(teacher, dataset):
    teacher.set_reduction(
        {"method": "pumer", "layers": [0], "prune_ratio": 0.5, "image_merge_ratio": 0.0, "text_merge_ratio": 0.0}
    )
    return teacher, dataset, collate


def change_a_row(teacher, dataset):
    rows = list(dataset)
    rows[2]["input_ids"][0] = 29 - rows[2]["input_ids"][0]
    return teacher, Dataset.from_list(rows, features=dataset.features), collate


def change_the_order(teacher, dataset):
    return teacher, dataset.select([3, 2, 1, 0]), collate


def change_the_number_of_rows(teacher, dataset):
    return teacher, dataset.select([0, 1, 2]), collate


def change_the_collator(teacher, dataset):
    def brighter(rows):
        batch = collate(rows)
        return {**batch, "pixel_values": batch["pixel_values"] + 0.5}

    return teacher, dataset, brighter


@pytest.mark.parametrize(
    "change",
    [
        change_a_bias,
        change_the_reduction,
        change_a_row,
        change_the_order,
        change_the_number_of_rows,
        change_the_collator,
    ],
    ids=lambda change: change.__name__,
)
def test_a_change_is_not_answered_from_the_cache(change, counted_teacher, make_dataset, tmp_path):
    add_teacher_logits(make_dataset(4), counted_teacher().model, collate, cache_dir=tmp_path)
    changed = counted_teacher()
    teacher, dataset, collator = change(changed.model, make_dataset(4))
    result = add_teacher_logits(dataset, teacher, collator, cache_dir=tmp_path)
    assert changed.batches
    with torch.no_grad():
        expected = teacher(**collator(list(dataset))).logits
    torch.testing.assert_close(column(result), expected, rtol=1e-4, atol=1e-5)


def test_selected_and_shuffled_rows_get_their_own_logits(counted_teacher, make_dataset, tmp_path):
    teacher, whole = counted_teacher(), make_dataset(6)
    dataset = whole.shuffle(seed=1).select([4, 0, 2])
    result = add_teacher_logits(dataset, teacher.model, collate, cache_dir=tmp_path)
    assert result["name"][:] == dataset["name"][:]
    torch.testing.assert_close(column(result), logits_of(teacher.model, dataset), rtol=1e-4, atol=1e-5)


def test_rows_without_labels_get_logits_too(counted_teacher, make_dataset, tmp_path):
    teacher, dataset = counted_teacher(), make_dataset(2).remove_columns("labels")
    result = add_teacher_logits(dataset, teacher.model, collate, cache_dir=tmp_path)
    torch.testing.assert_close(column(result), logits_of(teacher.model, dataset), rtol=1e-4, atol=1e-5)


def test_a_dataset_in_torch_format_gets_logits_too(counted_teacher, make_dataset, tmp_path):
    def stack(rows):
        return {name: torch.stack([row[name] for row in rows]) for name in ("input_ids", "pixel_values")}

    teacher, dataset = counted_teacher(), make_dataset(3).remove_columns("name").with_format("torch")
    result = add_teacher_logits(dataset, teacher.model, stack, cache_dir=tmp_path)
    with torch.no_grad():
        expected = teacher.model(**stack(list(dataset))).logits
    logits = torch.stack(list(result.with_format("torch")["teacher_logits"]))
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)


def test_a_teacher_in_bf16_gives_its_logits(counted_teacher, make_dataset, tmp_path):
    teacher, dataset = counted_teacher(), make_dataset(2)
    result = add_teacher_logits(dataset, teacher.model.bfloat16(), collate, cache_dir=tmp_path)
    torch.testing.assert_close(column(result), logits_of(teacher.model, dataset).float(), rtol=0.05, atol=0.05)


def test_the_column_is_float32_and_stays_on_disk(counted_teacher, make_dataset, tmp_path):
    # VQA v2 has 440,000 rows of 3,129 labels: 6 GB of float32
    result = add_teacher_logits(make_dataset(4), counted_teacher().model, collate, cache_dir=tmp_path)
    assert result.features["teacher_logits"].feature.dtype == "float32"
    assert [file for file in result.cache_files if Path(file["filename"]).parent == tmp_path]
