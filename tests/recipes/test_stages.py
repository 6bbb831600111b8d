import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import PUMER, assert_same_weights, log_of, vilt_fields, weights_in
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForVisualQuestionAnswering,
    AutoProcessor,
    ViltProcessor,
)

from pumer_hf import PuMerViltForQuestionAnswering, PuMerViltModel
from pumer_hf.bench.cost import measure_cost
from pumer_hf.data.scenes.digits import COLOURS
from pumer_hf.data.vqa import VqaCollator, VqaDataArguments, load_vqa
from pumer_hf.inputs import Encoder
from pumer_hf.metrics.vqa import row_scores
from pumer_hf.models.encoders.vilt.processing import build_bert_tokenizer
from pumer_hf.recipes.build import build_teacher, load_model
from pumer_hf.recipes.recipe import ModelArguments, RecipeTrainingArguments
from pumer_hf.recipes.report import format_report
from pumer_hf.recipes.stages import predict, train_stage
from pumer_hf.results import PERCENT, Cost, Evaluation, Metric, Report

TEXT_LENGTH = 12
REDUCTION = {**PUMER, "saliency": "mean_head"}
CONFIG = vilt_fields(
    image_size=32, max_position_embeddings=TEXT_LENGTH, hidden_dropout_prob=0.1, initializer_range=0.15
)


def accuracy(prediction):
    """`compute_metrics`."""
    return {"accuracy": 100 * float(row_scores(prediction.predictions, prediction.label_ids).mean())}


@pytest.fixture(scope="module")
def data():
    """Twelve questions to train on."""
    answers = [*map(str, range(10)), *COLOURS, "yes", "no"]
    return load_vqa(VqaDataArguments(train_scenes=3, eval_scenes=2, grid_size=4), labels=answers)


@pytest.fixture(scope="module")
def built(data):
    """A teacher and its processor."""
    torch.manual_seed(0)
    return build_teacher(ModelArguments(config=CONFIG), data.labels, data.train["question"], TEXT_LENGTH)


@pytest.fixture
def collator(built, data):
    return VqaCollator(Encoder(built[1]).replace(max_text_length=TEXT_LENGTH), data.labels)


@pytest.fixture
def teacher_folder(built, tmp_path):
    built[0].save_pretrained(tmp_path / "finetuned")
    return tmp_path / "finetuned"


@pytest.fixture
def stage_args(make_args):
    """Three steps an epoch, a checkpoint every second one."""

    def make(folder, **overrides):
        values = {
            "output_dir": str(folder),
            "max_steps": 5,
            "optim": "adamw_torch",
            "learning_rate": 1e-3,
            "per_device_train_batch_size": 4,
            "per_device_eval_batch_size": 4,
            "save_strategy": "steps",
            "save_steps": 2,
        }
        return make_args(RecipeTrainingArguments, **{**values, **overrides})

    return make


@pytest.fixture
def student_steps():
    """An entry for each training step that `train_student` has made."""
    return []


@pytest.fixture
def train_student(data, built, collator, teacher_folder, stage_args, student_steps):
    def run(folder, *, student=None, collate=collator, **overrides):
        student = load_model(teacher_folder, REDUCTION) if student is None else student
        student.register_forward_hook(lambda module, *_: student_steps.append(1) if module.training else None)
        train_stage(
            stage_args(folder, **overrides),
            student,
            train=data.train,
            validation=data.validation,
            collator=collate,
            processor=built[1],
            compute_metrics=accuracy,
            teacher=load_model(teacher_folder, None),
        )
        return Path(folder)

    return run


@pytest.fixture
def train_and_interrupt(train_student, collator):
    """Train until a batch is asked for, one ahead of its step, and end there as Ctrl-C does."""

    def run(folder, *, at_batch, **overrides):
        batches = []

        def collate(rows):
            batches.append(rows)
            if sum(len(rows) == 4 for rows in batches) == at_batch:
                raise KeyboardInterrupt
            return collator(rows)

        with pytest.raises(KeyboardInterrupt):
            train_student(folder, collate=collate, **overrides)
        return Path(folder)

    return run


def steps_of(folder):
    return [entry["step"] for entry in log_of(folder) if "loss" in entry]


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# A stage from the beginning


def test_the_vocabulary_of_a_model_from_scratch_is_the_same_each_time(data):
    # every process of a run makes its own, and so does a run that is resumed
    vocabularies = [build_bert_tokenizer(data.train["question"], TEXT_LENGTH).get_vocab() for _ in range(5)]
    assert all(vocabulary == vocabularies[0] for vocabulary in vocabularies)


def test_a_stage_writes_a_folder_that_the_auto_classes_load(train_student, teacher_folder, collator, data, tmp_path):
    student = load_model(teacher_folder, REDUCTION)
    folder = train_student(tmp_path / "student", student=student)
    loaded = AutoModelForVisualQuestionAnswering.from_pretrained(folder)
    assert type(loaded) is PuMerViltForQuestionAnswering
    assert type(AutoModel.from_pretrained(folder)) is PuMerViltModel
    assert AutoConfig.from_pretrained(folder).reduction == REDUCTION
    assert list(loaded.config.id2label.values()) == list(data.labels)
    processor = AutoProcessor.from_pretrained(folder)
    assert type(processor) is ViltProcessor
    rows = list(data.validation)
    again = VqaCollator(Encoder(processor).replace(max_text_length=TEXT_LENGTH), data.labels)(rows)
    inputs = collator(rows)
    for name, value in inputs.items():
        assert torch.equal(again[name], value), name
    with torch.no_grad():
        assert torch.equal(loaded(**again).logits, student.eval()(**inputs).logits)


def test_the_student_stage_logs_losses_and_tokens(train_student, tmp_path):
    log = log_of(train_student(tmp_path / "student", alpha=0.5))
    losses = [entry for entry in log if "loss" in entry]
    assert [entry["step"] for entry in losses] == [1, 2, 3, 4, 5]
    for entry in losses:
        assert entry["loss"] == pytest.approx(entry["task_loss"] + 0.5 * entry["distillation_loss"], rel=1e-4)
    (tokens,) = [entry for entry in log if "gflops_per_example" in entry]
    assert (tokens["text_tokens/layer_0"], tokens["image_tokens/layer_0"]) == (10, 9)


def test_the_teacher_stage_has_neither_distillation_nor_reduction(built, data, collator, stage_args, tmp_path):
    teacher = PuMerViltForQuestionAnswering(built[0].config)
    train_stage(
        stage_args(tmp_path / "teacher"),
        teacher,
        train=data.train,
        validation=data.validation,
        collator=collator,
        processor=built[1],
        compute_metrics=accuracy,
    )
    log = log_of(tmp_path / "teacher")
    assert steps_of(tmp_path / "teacher") == [1, 2, 3, 4, 5]
    assert not [name for entry in log for name in entry if "tokens" in name or "distillation" in name]
    assert AutoConfig.from_pretrained(tmp_path / "teacher").reduction is None


def test_a_stage_evaluates_on_the_validation_data_when_asked_to(train_student, collator, data, tmp_path):
    folder = train_student(tmp_path / "student", eval_strategy="steps", eval_steps=4)
    evaluations = [entry for entry in log_of(folder) if "eval_accuracy" in entry]
    assert [entry["step"] for entry in evaluations] == [4, 5]
    assert all(0 <= entry["eval_accuracy"] <= 100 for entry in evaluations)
    with torch.no_grad():
        loss = load_model(folder, REDUCTION)(**collator(list(data.validation))).loss
    assert evaluations[-1]["eval_loss"] == pytest.approx(loss.item(), rel=1e-4)


def test_cached_teacher_logits_train_like_the_live_teacher(train_student, tmp_path):
    options = {"optim": "sgd", "learning_rate": 0.05}
    live = train_student(tmp_path / "live" / "student", **options)
    cached = train_student(tmp_path / "cached" / "student", cache_teacher_logits=True, **options)
    assert list((tmp_path / "cached" / "cache").glob("*.arrow"))
    assert not (tmp_path / "live" / "cache").exists()
    for name, value in weights_in(live).items():
        torch.testing.assert_close(weights_in(cached)[name], value, rtol=1e-3, atol=1e-5)
    terms = [[entry["distillation_loss"] for entry in log_of(f) if "loss" in entry] for f in (live, cached)]
    assert terms[0] == pytest.approx(terms[1], rel=1e-3)


def test_a_warmup_of_the_reduction_is_logged_from_its_first_step_on(train_student, tmp_path):
    folder = train_student(tmp_path / "student", reduction_warmup_steps=4)
    images = [entry["image_tokens/layer_1"] for entry in log_of(folder) if "gflops_per_example" in entry]
    assert images[0] == 17  # the first step reduces nothing
    assert images == sorted(images, reverse=True)
    assert images[-1] == 4
    assert steps_of(folder) == [1, 2, 3, 4, 5]
    assert AutoConfig.from_pretrained(folder).reduction == REDUCTION


# A folder that exists


def test_a_folder_with_a_run_is_not_overwritten(train_student, tmp_path):
    folder = train_student(tmp_path / "student")
    before = contents(folder)
    with pytest.raises(FileExistsError, match=r"--resume") as error:
        train_student(folder)
    assert str(folder) in str(error.value)
    assert contents(folder) == before


def test_a_folder_with_an_unfinished_run_is_not_overwritten(train_and_interrupt, train_student, tmp_path):
    folder = train_and_interrupt(tmp_path / "student", at_batch=4)
    with pytest.raises(FileExistsError, match=r"--resume"):
        train_student(folder)


@pytest.mark.parametrize("resume", [False, True])
def test_an_empty_folder_is_as_good_as_none(resume, train_student, tmp_path):
    (tmp_path / "student").mkdir()
    folder = train_student(tmp_path / "student", resume=resume)
    assert steps_of(folder) == [1, 2, 3, 4, 5]


def test_resuming_a_complete_stage_does_nothing(train_student, teacher_folder, tmp_path):
    folder = train_student(tmp_path / "student")
    before = contents(folder)
    student = load_model(teacher_folder, REDUCTION)

    def forward(*args, **kwargs):
        raise AssertionError("the student was run")

    student.forward = forward
    train_student(folder, student=student, resume=True)
    assert contents(folder) == before


# An interrupted stage


@pytest.mark.parametrize(
    "options", [{}, {"cache_teacher_logits": True}, {"reduction_warmup_steps": 4}, {"elastic": [0.0, 1.0]}], ids=str
)
def test_a_resumed_stage_ends_like_an_uninterrupted_one(
    options, train_student, train_and_interrupt, student_steps, tmp_path
):
    whole = train_student(tmp_path / "whole" / "student", **options)
    at_batch = 7 if "cache_teacher_logits" in options else 4  # the cache asks for the three batches first
    folder = train_and_interrupt(tmp_path / "parts" / "student", at_batch=at_batch, **options)
    assert (folder / "checkpoint-2").is_dir()
    assert not (folder / "trainer_state.json").exists()
    student_steps.clear()
    train_student(folder, resume=True, **options)
    assert len(student_steps) == 3
    assert_same_weights(folder, whole)
    assert steps_of(folder) == [1, 2, 3, 4, 5]


def test_a_stage_that_ended_before_its_first_checkpoint_starts_again(train_student, train_and_interrupt, tmp_path):
    whole = train_student(tmp_path / "whole")
    folder = train_and_interrupt(tmp_path / "parts", at_batch=2)
    assert not list(folder.glob("checkpoint-*"))
    train_student(folder, resume=True)
    assert_same_weights(folder, whole)


@pytest.mark.parametrize("written", [["model.safetensors"], ["model.safetensors", "optimizer.pt", "rng_state.pth"]])
@pytest.mark.parametrize("half_a_state", [False, True])
def test_a_checkpoint_that_was_not_written_to_its_end_is_passed_over(
    half_a_state, written, train_student, student_steps, tmp_path
):
    whole = train_student(tmp_path / "whole")
    folder = tmp_path / "parts"
    shutil.copytree(whole / "checkpoint-2", folder / "checkpoint-2")
    (folder / "checkpoint-4").mkdir()
    for name in written:
        shutil.copy(whole / "checkpoint-4" / name, folder / "checkpoint-4")
    if half_a_state:
        state = (whole / "checkpoint-4" / "trainer_state.json").read_text()
        (folder / "checkpoint-4" / "trainer_state.json").write_text(state[: len(state) // 2])
    student_steps.clear()
    train_student(folder, resume=True)
    assert len(student_steps) == 3
    assert_same_weights(folder, whole)


@pytest.mark.parametrize("scheduler", ["linear", "constant"])
def test_a_stage_that_ended_while_saving_its_result_is_not_trained_further(
    scheduler, train_student, student_steps, tmp_path
):
    whole = train_student(tmp_path / "whole", lr_scheduler_type=scheduler)
    folder = tmp_path / "parts"
    shutil.copytree(whole / "checkpoint-5", folder / "checkpoint-5")
    student_steps.clear()
    train_student(folder, resume=True, lr_scheduler_type=scheduler)
    assert not student_steps
    assert_same_weights(folder, whole)
    assert steps_of(folder) == [1, 2, 3, 4, 5]


# After the training


def test_predict_gives_logits_and_labels_in_the_order_of_the_rows(built, data, collator, stage_args, tmp_path):
    args = stage_args(tmp_path / "run", per_device_eval_batch_size=5)
    logits, labels, _ = predict(args, built[0], data.train, collator)
    batch = collator(list(data.train))
    with torch.no_grad():
        expected = built[0].eval()(**batch).logits
    assert logits.shape == labels.shape == (12, len(data.labels))
    np.testing.assert_allclose(logits, expected.numpy(), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(labels, batch["labels"].numpy())


@pytest.fixture
def cost(built, data, collator, teacher_folder):
    models = {"teacher": load_model(teacher_folder, None), "student": load_model(teacher_folder, REDUCTION)}
    inputs = {name: value for name, value in collator(list(data.train)).items() if name != "labels"}
    return measure_cost(models, inputs, seconds=0.05)


def test_the_cost_has_speed_size_and_tokens_and_comes_back_from_json(cost):
    values = json.loads(json.dumps(cost.to_dict()))
    assert values.keys() == {"throughput", "gflops", "tokens_per_layer", "tokens_in"}
    assert Cost.from_dict(values) == cost
    speeds = cost.throughput.speeds
    assert values["throughput"]["ratio"] == cost.throughput.gain == speeds["student"].ratio > 0
    assert speeds["teacher"].ratio == 1.0
    assert cost.throughput.batch_size == 12
    assert values["gflops"]["ratio"] == pytest.approx(cost.gflops["teacher"] / cost.gflops["student"])
    assert cost.gflops_gain > 1.0
    assert cost.tokens_per_layer["teacher"] == [(12, 17)] * 3
    assert cost.tokens_per_layer["student"] == [(10, 9), (8, 4), (8, 4)]


def evaluation(kind, value, by_kind=None):
    parts = {} if by_kind is None else {"accuracy": {"count": PERCENT.of(by_kind)}}
    return Evaluation({"accuracy": kind.of(value)}, by_kind=parts)


def of_speed(cost, ratio):
    """The cost, as if the student were so fast."""
    speeds = cost.throughput.speeds
    speeds = {**speeds, "student": replace(speeds["student"], ratio=ratio)}
    return replace(cost, throughput=replace(cost.throughput, speeds=speeds))


def test_the_report_table_compares_teacher_and_student(cost):
    report = Report(
        evaluations={"teacher": evaluation(PERCENT, 80.0, 70.0), "student": evaluation(PERCENT, 79.25, 71.0)},
        cost=cost,
        baselines={"majority": PERCENT.of(20.0), "question_only": PERCENT.of(30.0)},
    )
    table = format_report(report)
    rows = {line.split("  ")[0].strip(): line.split() for line in table.splitlines()}
    assert rows["accuracy, %"][-4:] == ["80.00", "79.25", "-0.75", "points"]
    assert table.splitlines()[2].split() == ["count", "70.00", "71.00", "+1.00", "points"]
    for ratio, words in ((1.5, "1.50x faster"), (0.5, "2.00x slower")):
        assert words in format_report(replace(report, cost=of_speed(cost, ratio)))
    assert rows["GFLOPs per example"][-2:] == [f"{cost.gflops_gain:.2f}x", "fewer"]
    assert rows["tokens after layer 0 (text + image)"][-6:] == ["12", "+", "17", "10", "+", "9"]
    assert "majority 20.0 %" in table
    assert "question only 30.0 %" in table
    assert "inference_mode, batch 12" in table


def test_the_report_of_a_single_model_has_one_column(cost):
    alone = replace(cost, throughput=replace(cost.throughput, speeds={"teacher": cost.throughput.speeds["teacher"]}))
    alone = replace(alone, gflops={"teacher": cost.gflops["teacher"]})
    report = Report({"teacher": evaluation(PERCENT, 80.0)}, alone, baselines={"majority": PERCENT.of(20.0)})
    table = format_report(report)
    assert "student" not in table
    assert "points" not in table


def test_the_report_shows_other_units_and_where_lower_is_better(cost):
    def scored(loss, speed):
        return Evaluation({"loss": Metric(loss, "", higher_is_better=False), "speed": Metric(speed, "words/s")})

    table = format_report(Report({"teacher": scored(0.25, 1200.0), "student": scored(0.3, 1500.5)}, cost))
    rows = [re.split(r" {2,}", line.strip()) for line in table.splitlines()]
    assert rows[1] == ["loss (lower is better)", "0.25", "0.3", "+0.05"]
    assert rows[2] == ["speed, words/s", "1,200", "1,500", "+300.5 words/s"]
