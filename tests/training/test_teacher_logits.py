from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset, Features, Image, Value
from PIL import Image as PILImage

from pumer_hf.images import open_image
from pumer_hf.training.teacher_logits import add_teacher_logits, image_files


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


# Pictures in files, which the rows only name


@pytest.fixture
def pictures(make_rows, tmp_path):
    """Three rows that name pictures of one colour each, and their collator, which takes brightness for pixels."""

    def collate_pictures(rows):
        values = [np.asarray(open_image(row["image"], row["origin"])).mean() / 255 for row in rows]
        pixels = torch.tensor(values, dtype=torch.float32).reshape(-1, 1, 1, 1).expand(-1, 3, 32, 32)
        texts = make_rows(3)
        return {
            "input_ids": torch.stack([texts[int(row["origin"])]["input_ids"] for row in rows]),
            "attention_mask": torch.stack([texts[int(row["origin"])]["attention_mask"] for row in rows]),
            "pixel_values": pixels,
        }

    (tmp_path / "pictures").mkdir()
    paths = [tmp_path / "pictures" / f"{index}.bmp" for index in range(3)]
    for index, path in enumerate(paths):
        PILImage.new("RGB", (4, 4), (50 * index, 0, 0)).save(path)
    columns = {"image": [{"path": str(path), "bytes": None} for path in paths], "origin": ["0", "1", "2"]}
    features = Features({"image": Image(decode=False), "origin": Value("string")})
    return paths, Dataset.from_dict(columns, features=features), collate_pictures


def test_a_picture_replaced_under_its_name_is_not_answered_from_the_cache(pictures, counted_teacher, tmp_path):
    paths, dataset, collator = pictures
    first = add_teacher_logits(dataset, counted_teacher().model, collator, cache_dir=tmp_path / "cache")
    size = paths[2].stat().st_size
    PILImage.new("RGB", (4, 4), (255, 255, 255)).save(paths[2])
    assert paths[2].stat().st_size == size
    changed = counted_teacher()
    second = add_teacher_logits(dataset, changed.model, collator, cache_dir=tmp_path / "cache")
    assert changed.batches
    assert torch.equal(column(first)[:2], column(second)[:2])
    with torch.no_grad():
        expected = changed.model(**collator(list(dataset))).logits
    torch.testing.assert_close(column(second), expected, rtol=1e-4, atol=1e-5)


def test_pictures_that_stay_are_answered_from_the_cache(pictures, counted_teacher, tmp_path):
    _, dataset, collator = pictures
    add_teacher_logits(dataset, counted_teacher().model, collator, cache_dir=tmp_path / "cache")
    again = counted_teacher()
    add_teacher_logits(dataset, again.model, collator, cache_dir=tmp_path / "cache")
    assert not again.batches


def test_image_files_are_those_that_rows_name(pictures, tmp_path):
    paths, dataset, _ = pictures
    files = image_files(dataset)
    assert [path for path, *_ in files] == [str(path) for path in paths]
    assert [size for _, size, _ in files] == [path.stat().st_size for path in paths]
    (tmp_path / "train.zip").write_bytes(b"some archive")
    embedded, zipped = {"path": "0.bmp", "bytes": b"x"}, {"path": f"zip://0.bmp::{tmp_path}/train.zip", "bytes": None}
    remote = {"path": "hf://datasets/user/data@main/0.bmp", "bytes": None}
    written = {"path": "data:image/bmp;base64,AAAA", "bytes": None}
    images = Dataset.from_dict(
        {"left": [embedded, remote], "right": [zipped, written]},
        features=Features({"left": Image(decode=False), "right": Image(decode=False)}),
    )
    ((path, size, _),) = image_files(images)  # an archive counts as a file; what is in the table or elsewhere does not
    assert (path, size) == (f"{tmp_path}/train.zip", 12)
    assert image_files(Dataset.from_dict({"text": ["a"]})) == []
