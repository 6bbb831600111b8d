"""VQA-HAT, made here as it is distributed: reading it, and what is wrong with damaged folders."""

import json

import pytest
import torch
from tiny_tasks import tiny
from tiny_vqa_hat import save_vqa_hat, write_map
from transformers import CLIPImageProcessorPil

from pumer_hf import Encoder, EncodingRecord
from pumer_hf.measures.batches import image_sizes, padded_regions, vqa_hat_batches
from pumer_hf.measures.vqa_hat import find_maps, read_map, read_vqa_hat


@pytest.fixture
def hat(tmp_path):
    return save_vqa_hat(tmp_path)


def test_rows(hat, tmp_path):
    rows = read_vqa_hat(**hat).to_list()
    assert rows[0] == {
        "image": {"path": str(tmp_path / "images" / "COCO_val2014_000000000001.jpg"), "bytes": None},
        "question": "what is red?",
        "question_id": 10,
        "origin": f"{tmp_path / 'questions.json'}, question 0",
        "maps": [str(tmp_path / "maps" / "10_1.png"), str(tmp_path / "maps" / "10_2.png")],
        "answers": ["red", "no"],
    }
    assert [row["question_id"] for row in rows] == [10, 11]


def test_a_limit_and_no_answers(hat):
    del hat["annotations"]
    rows = read_vqa_hat(**hat, limit=1)
    assert rows["question_id"][:] == [10]
    assert "answers" not in rows.column_names
    assert len(read_vqa_hat(**hat, limit=100)) == 2
    with pytest.raises(ValueError, match="limit=0: .*1"):
        read_vqa_hat(**hat, limit=0)


def test_annotators_come_in_the_order_of_their_numbers(tmp_path):
    for annotator in range(1, 12):
        write_map(tmp_path / f"5_{annotator}.png")
    assert [path.stem for path in find_maps(str(tmp_path))[5]] == [f"5_{annotator}" for annotator in range(1, 12)]


def test_grey_values_come_as_they_are(tmp_path):
    write_map(tmp_path / "map.png", (0, 0, 2, 1), size=(3, 2))
    assert read_map(str(tmp_path / "map.png")).tolist() == [[200, 200, 0], [0, 0, 0]]


@pytest.mark.parametrize("backbone", ["vilt", "meter"])
def test_batches(backbone, hat):
    model, processor = tiny(backbone)
    first, second = vqa_hat_batches(model, processor, read_vqa_hat(**hat), batch_size=1)
    assert first.inputs["pixel_values"].shape == (1, 3, 48, 48)
    assert first.regions.shape == (1, 2, 6, 6)
    assert first.regions[0, 0].tolist() == [[True] * 3 + [False] * 3] * 6  # the wide map on the square image
    assert first.regions[0, 1].tolist() == [[True] * 6] * 3 + [[False] * 6] * 3
    assert second.regions.sum(dim=(2, 3)).tolist() == [[0, 1]]
    assert second.regions[0, 1, 5, 5]
    red, no = (list(model.config.id2label.values()).index(answer) for answer in ("red", "no"))
    expected = torch.zeros(1, model.config.num_labels)
    expected[0, [red, no]] = 0.5
    assert torch.equal(first.labels, expected)
    without = read_vqa_hat(**hat).remove_columns("answers")
    assert next(vqa_hat_batches(model, processor, without)).labels is None


def test_where_the_processor_cuts_the_middle_so_do_the_maps(hat):
    model, processor = tiny("meter")
    square = {"height": 48, "width": 48}
    processor.image_processor = CLIPImageProcessorPil(size={"shortest_edge": 48}, crop_size=square)
    first, second = vqa_hat_batches(model, processor, read_vqa_hat(**hat), batch_size=1)
    assert first.inputs["pixel_values"].shape == (1, 3, 48, 48)
    assert first.regions[0, 0].tolist() == [[True] * 3 + [False] * 3] * 6  # pixels 10 to 19 of the middle 10 to 29
    assert first.regions[0, 1].tolist() == [[True] * 6] * 3 + [[False] * 6] * 3
    assert not second.regions.any()  # the last pixel is cut off


def test_hidden_files_and_folders_are_no_maps(hat, tmp_path):
    (tmp_path / "maps" / "._10_1.png").write_bytes(b"what macOS leaves")
    (tmp_path / "maps" / "99_1.png").mkdir()
    assert set(find_maps(hat["maps"])) == {10, 11}


def damage(tmp_path, kind):
    """Damage the data, and say what the error must name."""
    maps = tmp_path / "maps"
    if kind == "missing map":
        (maps / "11_1.png").unlink()
        return FileNotFoundError, f"{maps / '11_1.png'}: there is no such map, but others are by 2 annotators"
    if kind == "wrong name":
        (maps / "11_2.png").rename(maps / "q11-2.png")
        return ValueError, f"{maps / 'q11-2.png'}: the name of a map must be <question_id>_<annotator>.png"
    if kind == "annotator 0":
        (maps / "11_2.png").rename(maps / "11_0.png")
        return ValueError, f"{maps / '11_0.png'}: the name of a map must be"
    if kind == "no maps":
        for path in maps.iterdir():
            path.unlink()
        return FileNotFoundError, f"{maps}: there is no map <question_id>_<annotator>.png in it"
    if kind == "no folder":
        maps.rename(tmp_path / "elsewhere")
        return FileNotFoundError, f"{maps}: there is no such folder of attention maps"
    if kind == "other questions":
        for path in list(maps.iterdir()):
            path.rename(maps / f"9{path.name}")
        path = tmp_path / "questions.json"
        return ValueError, f"{path}: the file holds no question with one of the 2 question_ids that are wanted"
    if kind == "no annotation":
        (tmp_path / "annotations.json").write_text(json.dumps({"annotations": []}))
        return ValueError, f"{tmp_path / 'annotations.json'}: has no annotation for question_id 10"
    assert kind == "no image"
    path = tmp_path / "images" / "COCO_val2014_000000000001.jpg"
    path.rename(path.with_stem("COCO_val2014_000000000003"))
    return FileNotFoundError, f"question 0: {tmp_path / 'images'} has no image with the number 1"


@pytest.mark.parametrize(
    "kind",
    [
        "missing map",
        "wrong name",
        "annotator 0",
        "no maps",
        "no folder",
        "other questions",
        "no annotation",
        "no image",
    ],
)
def test_damage_is_named(kind, hat, tmp_path):
    error, message = damage(tmp_path, kind)
    with pytest.raises(error) as caught:
        read_vqa_hat(**hat)
    assert message in str(caught.value)


def test_an_unreadable_map_is_named(hat, tmp_path):
    (tmp_path / "maps" / "11_2.png").write_bytes(b"no picture")
    model, processor = tiny("vilt")
    with pytest.raises(ValueError, match=r"attention map: .*cannot read .*11_2\.png"):
        list(vqa_hat_batches(model, processor, read_vqa_hat(**hat)))


def test_regions_lie_where_the_image_lies_that_keeps_its_shape(hat):
    model, processor = tiny("vilt")
    keeping = Encoder(processor, EncodingRecord(keep_aspect_ratio=True)).processor
    (batch,) = vqa_hat_batches(model, keeping, read_vqa_hat(**hat))
    assert batch.inputs["pixel_values"].shape == (2, 3, 40, 72)  # twice as wide as high, but for the limit and patches
    left, top = batch.regions[0]
    assert left.shape == (5, 9)
    assert left[:, :4].all()
    assert not left[:, 5:].any()
    assert top[:2].all()
    assert not top[3:].any()


def test_regions_of_images_of_several_shapes():
    mask = torch.zeros(2, 24, 32)
    mask[0, :16], mask[1, :, :8] = 1, 1
    sizes = image_sizes({"pixel_values": torch.zeros(2, 3, 24, 32), "pixel_mask": mask})
    assert sizes == [(16, 32), (24, 8)]
    regions = padded_regions([torch.ones(1, height // 8, width // 8, dtype=torch.bool) for height, width in sizes])
    assert torch.equal(regions[:, 0], mask[:, ::8, ::8].bool())
