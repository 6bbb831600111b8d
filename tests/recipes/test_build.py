import json
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import PUMER, meter_fields, vilt_fields
from transformers import CLIPImageProcessorPil, TrainingArguments

from pumer_hf.data.nlvr2 import NLVR2
from pumer_hf.data.retrieval import RETRIEVAL
from pumer_hf.data.snli_ve import SNLI_VE
from pumer_hf.data.tasks import TASKS as TABLE
from pumer_hf.data.tasks import register_task, task_of_model
from pumer_hf.data.vqa import VQA
from pumer_hf.explain.prediction import probabilities
from pumer_hf.hub.card import PuMerCard
from pumer_hf.hub.trainer import HubTrainer
from pumer_hf.inputs import resized_processor
from pumer_hf.models.families import FAMILIES
from pumer_hf.models.loading import load_checkpoint_model
from pumer_hf.recipes.build import build_teacher, check_sources, load_model, teacher_labels
from pumer_hf.recipes.recipe import ModelArguments

CONFIGS = {
    "vilt": vilt_fields(num_hidden_layers=2, image_size=16, max_position_embeddings=12),
    "meter": meter_fields(vision={"image_size": 16}, num_hidden_layers=2),
}
REDUCTION = {**PUMER, "layers": [0]}
TASKS = [VQA, NLVR2, SNLI_VE, RETRIEVAL]
LABELS = {"nlvr2": ("False", "True"), "retrieval": ()}


def build(backbone, task):
    torch.manual_seed(0)
    args = ModelArguments(backbone=backbone, config=CONFIGS[backbone])
    return build_teacher(args, LABELS.get(task.name, ("a", "b", "c")), ["what is it?"], 12, task)


@pytest.mark.parametrize("backbone", FAMILIES)
@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_each_task_gets_its_head_and_loads_again(backbone, task, tmp_path):
    model, processor = build(backbone, task)
    assert type(model).__name__ == FAMILIES[backbone].heads[task.name].__name__
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    student = load_model(str(tmp_path), REDUCTION, task)
    assert type(student) is type(model)
    assert student.reduction.at("layers").layers == (0,)
    if LABELS.get(task.name, True):
        args = ModelArguments(backbone=backbone, teacher=str(tmp_path))
        assert tuple(teacher_labels(args)) == LABELS.get(task.name, ("a", "b", "c"))


GQA = replace(VQA, name="gqa", head="vqa", activation="softmax")


@pytest.fixture
def gqa():
    """A task of another package, with the head of VQA."""
    register_task(GQA)
    yield GQA
    del TABLE["gqa"]


def test_a_task_with_the_head_of_another_is_found_from_its_models(gqa, tmp_path):
    model, processor = build("vilt", gqa)
    assert task_of_model(model) is gqa
    for part in (model, processor):
        part.save_pretrained(tmp_path)
    assert PuMerCard.from_checkpoint(tmp_path).task == "gqa"
    assert sum(probabilities(load_checkpoint_model(str(tmp_path)), torch.zeros(3)).values()) == pytest.approx(1)
    training = TrainingArguments(str(tmp_path / "run"), use_cpu=True, report_to=[])
    assert HubTrainer(load_model(str(tmp_path), REDUCTION, gqa), args=training).card.task == "gqa"
    assert task_of_model(load_model(str(tmp_path), None, VQA)) is VQA  # trained on, for another task
    again, _ = build_teacher(ModelArguments(checkpoint=str(tmp_path)), ("a", "b", "c"), [], 12, VQA)
    assert task_of_model(again) is VQA


def test_models_of_a_task_with_its_own_head_do_not_name_it(tmp_path):
    model, _ = build("vilt", VQA)
    model.save_pretrained(tmp_path)
    assert "task" not in json.loads((tmp_path / "config.json").read_text())
    assert task_of_model(model) is VQA


def test_the_head_tells_the_task_where_a_task_is_unknown(tmp_path):
    model, _ = build("vilt", GQA)  # which nobody has registered
    model.save_pretrained(tmp_path)
    assert task_of_model(model) is VQA
    assert PuMerCard.from_checkpoint(tmp_path).task == "vqa"


@pytest.mark.parametrize("backbone", FAMILIES)
@pytest.mark.filterwarnings("ignore")
def test_nlvr2_from_a_checkpoint_gives_the_second_image_the_embedding_of_the_first(backbone, tmp_path):
    model, processor = build(backbone, VQA)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    args = ModelArguments(backbone=backbone, checkpoint=str(tmp_path))
    pair, _ = build_teacher(args, ("False", "True"), [], 12, NLVR2)
    name = next(
        name
        for name, value in model.base_model.named_parameters()
        if name.endswith("token_type_embeddings.weight") and "text" not in name
    )
    before, after = (dict(each.base_model.named_parameters())[name] for each in (model, pair))
    assert torch.equal(after, torch.stack([before[0], before[1], before[1]]))
    for other, value in model.base_model.named_parameters():
        assert other == name or torch.equal(dict(pair.base_model.named_parameters())[other], value), other


@pytest.mark.parametrize(("shortest", "cut"), [(48, 48), (64, 48)])
def test_a_smaller_student_sees_the_same_middle(shortest, cut):
    _, processor = build("meter", VQA)
    square = {"height": cut, "width": cut}
    processor.image_processor = CLIPImageProcessorPil(size={"shortest_edge": shortest}, crop_size=square)
    ramp = np.tile(np.arange(0, 240, dtype=np.uint8), (80, 1))  # grey says where: 240 x 80 pixels
    image = Image.fromarray(np.stack([ramp] * 3, axis=2))
    whole, half = (
        made.image_processor([image], return_tensors="pt")["pixel_values"][0, 0]
        for made in (processor, resized_processor(processor, cut // 2))
    )
    assert half.shape == (cut // 2, cut // 2)
    torch.testing.assert_close(half, whole.view(cut // 2, 2, cut // 2, 2).mean(dim=(1, 3)), atol=0.03, rtol=0)
    assert processor.image_processor.size["shortest_edge"] == shortest  # not changed


# What is no model for the task


def broken(folder, kind):
    """A folder of a saved model in which something is wrong."""
    task = RETRIEVAL if kind == "another head" else VQA
    for part in build("meter" if kind == "another backbone" else "vilt", task):
        part.save_pretrained(folder)
    weights = folder / "model.safetensors"
    if kind == "no weights":
        weights.unlink()
    elif kind == "weights cut short":
        weights.write_bytes(weights.read_bytes()[:2000])
    elif kind == "no config":
        (folder / "config.json").unlink()
    elif kind == "config cut short":
        (folder / "config.json").write_text('{"model_type": ')
    elif kind == "another kind of model":
        (folder / "config.json").write_text('{"model_type": "bert", "architectures": ["BertModel"]}')
    elif kind == "no processor":
        for path in folder.iterdir():
            if path.name not in ("config.json", weights.name):
                path.unlink()
    return str(folder)


WRONG = {
    "no weights": "there is no model in this folder.*model.safetensors",
    "weights cut short": "model.safetensors .*cut short",
    "no config": "has no config.json",
    "config cut short": "config.json",
    "another kind of model": "model_type='bert'",
    "another head": "PuMerViltForImageAndTextRetrieval, but the task vqa needs .*ForQuestionAnswering",
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_folder_that_holds_no_model_for_the_task_is_named_with_its_flag(kind, tmp_path):
    source = broken(tmp_path, kind)
    with pytest.raises(ValueError, match=f"{source}.*{WRONG[kind]}") as error:
        load_model(source, None, VQA, flag="--model")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("source", ["nowhere/model", "./nowhere", "no such name", "a/b/c"])
@pytest.mark.parametrize("field", ["teacher", "checkpoint"])
def test_a_model_that_is_nowhere_is_named_with_its_field(field, source):
    args = ModelArguments(**{field: source})
    for check in (lambda: check_sources(args, VQA), lambda: build_teacher(args, ("a", "b"), [], 12)):
        with pytest.raises(ValueError, match=f"model.{field}='{source}': .*no model") as error:
            check()
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("field", "kind", "message"),
    [
        ("teacher", "another head", "model.teacher=.*PuMerViltForImageAndTextRetrieval"),
        ("checkpoint", "another head", None),  # it gets the head of the task
        ("teacher", "another backbone", "model.backbone='vilt': model.teacher=.* meter"),
        ("checkpoint", "another backbone", "model.backbone='vilt': model.checkpoint=.* meter"),
    ],
)
def test_the_models_of_a_recipe_must_fit_it(field, kind, message, tmp_path):
    args = ModelArguments(**{field: broken(tmp_path, kind)})
    with nullcontext() if message is None else pytest.raises(ValueError, match=message):
        check_sources(args, VQA)


def test_weights_that_do_not_fit_the_config_are_no_random_start(tmp_path):
    for part in build("vilt", VQA):
        part.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 9}))
    with pytest.raises(ValueError, match="model.teacher=.*config.json, .*without vilt.encoder"):
        build_teacher(ModelArguments(teacher=str(tmp_path)), ("a", "b", "c"), [], 12)


def test_a_model_without_its_processor_is_named(tmp_path):
    source = broken(tmp_path, "no processor")
    with pytest.raises(ValueError, match=f"model.teacher='{source}': .*no processor"):
        build_teacher(ModelArguments(teacher=source), ("a", "b", "c"), [], 12)
