"""A run is resumed with the data and the model that its stages were made from, or not at all."""

import json
import logging
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny_tasks import CONFIGS, REDUCTION

from pumer_hf.data.vqa import VQA, VqaDataArguments
from pumer_hf.recipes import runner as run
from pumer_hf.recipes.build import build_teacher
from pumer_hf.recipes.recipe import ModelArguments, Recipe, RecipeTrainingArguments
from pumer_hf.recipes.record import STAGES_NAME, _rows, begin_stage, differences, recorded

ROWS = [("red", "what colour is it?", "red"), ("blue", "what colour is it?", "blue"), ("red", "is it red?", "yes")]


@pytest.fixture
def stages(monkeypatch):
    """What is trained: in place of training, each stage saves its model, whole or as a checkpoint."""
    trained = []

    def save(args, model, *, processor, **rest):
        trained.append(Path(args.output_dir).name)
        folder = Path(args.output_dir) / ("" if save.whole else "checkpoint-1")
        if not (folder / "trainer_state.json").exists():
            model.save_pretrained(folder)
            processor.save_pretrained(folder)
            state = {} if save.whole else {"global_step": 1, "max_steps": 2}
            (folder / "trainer_state.json").write_text(json.dumps(state))

    save.whole, save.trained = True, trained
    monkeypatch.setattr(run, "train_stage", save)
    return save


@pytest.fixture
def train(tmp_path):
    """Train the stages of a recipe on rows of `(picture, question, answer)`; gives the folder of the run."""

    def train(rows=ROWS, *, validation=ROWS[:2], resume=False, reduction=None, model=None, data=None, **training):
        folder = tmp_path / training.pop("files", "files")
        folder.mkdir(exist_ok=True)
        for colour in ("red", "blue"):
            Image.new("RGB", (8, 8), colour).save(folder / f"{colour}.png")
        files = {}
        for split, own in (("train", rows), ("validation", validation)):
            lines = [json.dumps({"image": f"{i}.png", "question": q, "answer": a}) for i, q, a in own]
            (folder / f"{split}.jsonl").write_text("\n".join(lines))
            files[f"{split}_file"] = [str(folder / f"{split}.jsonl")]
        values = {
            "output_dir": str(tmp_path / "run"),
            "report_to": "none",
            "use_cpu": True,
            "resume": resume,
            **training,
        }
        recipe = Recipe(
            ModelArguments(config=CONFIGS["vilt"], **(model or {})),
            reduction,
            VqaDataArguments(**{**files, "max_text_length": 12, "unknown_answers": "ignore", **(data or {})}),
            RecipeTrainingArguments(**values),
            {**values, "metric_for_best_model": None},
        )
        loaded = VQA.load(recipe.data, None)
        teacher, processor = build_teacher(recipe.model, loaded.labels, VQA.texts(loaded.train), 12)
        collators = [VQA.collator(processor, loaded, recipe.data, training) for training in (True, False)]
        run.train_models(VQA, recipe, loaded, teacher, *collators)
        return tmp_path / "run"

    return train


def refusal(train, *args, **kwargs):
    """The message that a resumed run ends with."""
    with pytest.raises(SystemExit) as end:
        train(*args, resume=True, **kwargs)
    message = str(end.value.code)
    assert "\n" not in message
    assert "--output_dir" in message
    return message


MORE_BLUE = [*ROWS, ("blue", "which colour is it?", "yes"), ("blue", "is it blue?", "yes")]


@pytest.mark.parametrize("whole", [True, False])
def test_rows_that_were_added_are_named_with_the_label_that_they_move(whole, train, stages):
    stages.whole = whole
    train()
    message = refusal(train, MORE_BLUE)
    assert "label 0 was 'blue' and is 'yes'" in message
    assert "train.rows was 3 and is 5" in message
    assert ("--teacher" in message) == whole
    assert stages.trained == ["teacher"]


@pytest.mark.parametrize("resume", [{}, {"learning_rate": 0.5}, {"files": "moved"}, {"logging_steps": 7}], ids=str)
def test_what_may_change_does(resume, train, stages):
    train(reduction=REDUCTION)
    train(reduction=REDUCTION, resume=True, **resume)
    assert stages.trained == 2 * ["teacher", "student"]


CHANGES = {
    "train.hash was": {"rows": [ROWS[1], ROWS[0], ROWS[2]]},
    "validation.hash was": {"validation": ROWS[1:]},
    "data.max_text_length was 12 and is 11": {"data": {"max_text_length": 11}},
    "data.keep_aspect_ratio was false and is true": {"data": {"keep_aspect_ratio": True}},
    "model.image_mean was 0.5 and is 0.0": {"model": {"image_mean": 0.0}},
}


@pytest.mark.parametrize("message", CHANGES)
def test_what_a_finished_teacher_was_made_from_is_compared(message, train, stages):
    train()
    assert message in refusal(train, **CHANGES[message])


def test_a_vocabulary_from_other_texts_is_named(train, stages):
    train()
    rows = [*ROWS[:2], ("red", "is it crimson?", "yes")]
    assert "vocabulary.hash was" in refusal(train, rows)


def test_the_config_of_a_model_from_scratch_is_compared(train, stages, monkeypatch):
    train()
    monkeypatch.setitem(CONFIGS["vilt"], "hidden_size", 32)
    assert "model.config.hidden_size was 16 and is 32" in refusal(train)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"reduction": {**REDUCTION, "image_merge_ratio": 0.1}}, "reduction.image_merge_ratio was 0.3 and is 0.1"),
        ({"reduction": REDUCTION, "model": {"image_size": 24}}, "model.image_size was null and is 24"),
    ],
)
def test_a_student_is_compared_with_its_reduction_and_its_images(change, message, train, stages):
    train(reduction=REDUCTION)
    refused = refusal(train, **change)
    assert message in refused
    assert "run/student was made from" in refused


def test_a_student_does_not_go_on_with_another_teacher(train, stages, tmp_path):
    folder = train(reduction=REDUCTION)
    weights = load_file(folder / "teacher" / "model.safetensors")
    weights["classifier.3.bias"] += 1
    save_file(weights, folder / "teacher" / "model.safetensors", {"format": "pt"})
    assert "teacher was " in refusal(train, reduction=REDUCTION)


def test_a_teacher_that_was_moved_is_the_same(train, stages, tmp_path):
    teacher = train(output_dir=str(tmp_path / "first")) and tmp_path / "first" / "teacher"
    train(reduction=REDUCTION, model={"teacher": str(teacher)})
    shutil.move(teacher, tmp_path / "moved")
    train(reduction=REDUCTION, model={"teacher": str(tmp_path / "moved")}, resume=True)
    assert stages.trained == ["teacher", "student", "student"]
    assert "model.teacher was" in refusal(train, reduction=REDUCTION)  # and none is another


def test_a_stage_that_cannot_go_on_ends_with_a_message(train, stages):
    stages.whole = False
    folder = train()
    state = {"global_step": 3, "max_steps": 3, "best_model_checkpoint": "run/teacher/checkpoint-2"}
    (folder / "teacher" / "checkpoint-1" / "trainer_state.json").write_text(json.dumps(state))
    best = {"load_best_model_at_end": True, "eval_strategy": "steps", "save_strategy": "steps"}
    assert f"{folder / 'teacher' / 'checkpoint-2'} is not there" in refusal(train, **best)


def test_another_student_begins_where_there_is_none(train, stages):
    train()
    train(reduction=REDUCTION, resume=True)
    assert stages.trained == ["teacher", "teacher", "student"]


def test_a_stage_of_which_nothing_is_left_begins_with_other_data(train, stages):
    folder = train()
    shutil.rmtree(folder / "teacher")
    train(MORE_BLUE, resume=True)
    assert json.loads((folder / STAGES_NAME).read_text())["teacher"]["labels"] == ["yes", "blue", "red"]


def test_a_run_of_before_the_record_is_compared_by_labels_and_vocabulary(train, stages, caplog):
    folder = train(reduction=REDUCTION)
    (folder / STAGES_NAME).unlink()
    logger = logging.getLogger("transformers")
    logger.addHandler(caplog.handler)
    train(reduction=REDUCTION, resume=True)
    train(reduction={**REDUCTION, "layers": [0, 1]}, resume=True)
    logger.removeHandler(caplog.handler)
    told = [record for record in caplog.records if STAGES_NAME in record.getMessage()]
    assert len(told) == 1
    assert "label 0 was 'blue' and is 'yes'" in refusal(train, MORE_BLUE)
    assert "vocabulary.hash was" in refusal(train, [*ROWS[:2], ("red", "is it crimson?", "yes")])


def test_a_record_that_is_not_whole_is_named(train, stages):
    folder = train()
    (folder / STAGES_NAME).write_text("{")
    with pytest.raises(SystemExit) as end:
        train(resume=True)
    assert str(folder / STAGES_NAME) in str(end.value.code)


def test_the_record_tells_what_a_finished_stage_was_trained_with(train, stages):
    folder = train(learning_rate=0.25)
    train(learning_rate=0.5, resume=True)
    assert recorded(folder / "teacher", "training")["learning_rate"] == 0.25


def test_the_record_of_an_unfinished_stage_follows(train, stages):
    stages.whole = False
    folder = train(learning_rate=0.25)
    train(learning_rate=0.5, resume=True)
    assert recorded(folder / "teacher", "training")["learning_rate"] == 0.5


def test_labels_that_differ_are_counted():
    then = {"labels": ["a", "b"]}
    assert differences(then, {"labels": ["a", "b", "c"]}) == ["the labels were 2 and are 3"]
    assert differences(then, {"labels": ["b", "a"]}) == ["label 0 was 'a' and is 'b'"]
    assert differences(then, {"labels": ["a", "b"]}) == []


def test_a_stream_is_the_same_wherever_its_folder_is_named_from(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows").mkdir()
    named = ["rows", str(tmp_path / "rows"), "other"]
    first, same, other = (_rows(iter(()), SimpleNamespace(data=VqaDataArguments(dataset=name))) for name in named)
    assert first == same != other
    assert differences({"train": first}, {"train": {"rows": 3, "hash": "x"}}) == []  # now loaded as a whole
    assert differences({"train": first}, {"train": other}) == [
        f'train.streamed was {json.dumps(first["streamed"])} and is "other"'
    ]


def test_a_stage_that_had_ended_keeps_its_record(tmp_path):
    """More steps than it was killed after do not train it on."""
    folder = tmp_path / "student"
    (folder / "checkpoint-4").mkdir(parents=True)
    (folder / "checkpoint-4" / "trainer_state.json").write_text(json.dumps({"global_step": 4, "max_steps": 4}))
    record = {"labels": [], "train": {}}
    (tmp_path / STAGES_NAME).write_text(json.dumps({"student": {**record, "training": {"max_steps": 4}}}))
    args = RecipeTrainingArguments(output_dir=str(folder), resume=True, max_steps=8, use_cpu=True)
    begin_stage(args, record)
    assert recorded(folder, "training") == {"max_steps": 4}
