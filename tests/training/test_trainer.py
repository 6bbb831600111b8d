import copy
import statistics
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file
from tiny import assert_same_weights
from tiny_tasks import LABELS, tiny
from torch.nn import functional as F
from transformers import AutoProcessor, TrainerCallback, TrainingArguments, default_data_collator

from pumer_hf import (
    DistillationTrainer,
    DistillationTrainingArguments,
    PuMerViltForImageAndTextRetrieval,
    PuMerViltForImagesAndTextClassification,
    PuMerViltForQuestionAnswering,
    PuMerViltForVisualEntailment,
    ReductionWarmupCallback,
)
from pumer_hf.data.vqa import VqaCollator
from pumer_hf.encoding import EncodingRecord, saved_record
from pumer_hf.inputs import Encoder
from pumer_hf.reducers.pumer import PuMerReducer

# transformers renamed it in 5.23
CHECKPOINTING = next(
    name
    for name in ("activation_checkpointing", "gradient_checkpointing")
    if name in {field.name for field in fields(TrainingArguments)}
)
# The gradient of a key bias is 0: it adds the same to the scores of all keys, which the softmax does not see.
WITHOUT_GRADIENT = {f"vilt.encoder.layer.{layer}.attention.attention.key.bias" for layer in range(3)}


def batch_of(rows):
    return default_data_collator(rows)


def logits_of(model, rows):
    """Logits in eval mode, leaving the model as it was."""
    model = copy.deepcopy(model).eval()
    with torch.no_grad():
        batch = batch_of(rows)
        return model(**{name: batch[name] for name in ("input_ids", "attention_mask", "pixel_values")}).logits


def with_teacher_logits(rows, teacher):
    return [{**row, "teacher_logits": logits} for row, logits in zip(rows, logits_of(teacher, rows), strict=True)]


def loss_by_hand(model, rows, teacher=None, alpha=1.0, temperature=1.0):
    """The three terms of one step, written without the package's loss functions; `model` in train mode."""
    batch = batch_of(rows)
    outputs = model.train()(**batch)
    task = F.binary_cross_entropy_with_logits(outputs.logits, batch["labels"], reduction="none").sum(-1).mean()
    if teacher is None:
        return task
    target = (logits_of(teacher, rows) / temperature).softmax(-1)
    student = (outputs.logits / temperature).softmax(-1)
    divergence = (target * (target.log() - student.log())).sum(-1).mean()
    return task + alpha * temperature**2 * divergence


def gradients_by_hand(model, loss_of):
    model = copy.deepcopy(model)
    loss_of(model).backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}


class LossReducer(PuMerReducer):
    """Reports auxiliary losses, as methods that learn to reduce do."""

    def forward(self, layer, pair, evidence):
        pair, trace = super().forward(layer, pair, evidence)
        losses = {"size_loss": 0.1 * pair.image.states.square().mean()}
        if layer == 1:
            losses["last_loss"] = 0.2 * pair.text.states.square().mean()
        return pair, replace(trace, losses=losses)


class StopAt(TrainerCallback):
    """Ends the training at a step, after its checkpoint is written: politely, or as Ctrl-C does."""

    def __init__(self, step, politely):
        self.step, self.politely = step, politely

    def on_step_end(self, args, state, control, **kwargs):
        if self.politely and state.global_step == self.step:
            control.should_training_stop = True
        return control

    def on_save(self, args, state, control, **kwargs):
        if not self.politely and state.global_step == self.step:
            raise KeyboardInterrupt


TASKS = {
    "question answering": PuMerViltForQuestionAnswering,
    "visual entailment": PuMerViltForVisualEntailment,
    "nlvr2": PuMerViltForImagesAndTextClassification,
    "retrieval": PuMerViltForImageAndTextRetrieval,
}


def task_rows(task, rows):
    """The same examples with the labels, and the number of images, of a task."""
    if task == "question answering":
        return rows
    rows = [{**row, "labels": torch.tensor(index % 2)} for index, row in enumerate(rows)]
    if task == "visual entailment":
        return rows
    return [{**row, "pixel_values": torch.stack([row["pixel_values"], row["pixel_values"].flip(1)])} for row in rows]


# What a step changes


@pytest.mark.parametrize("task", TASKS)
def test_two_steps_change_every_trainable_parameter_of_the_student_and_none_of_the_teacher(
    task, make_model, make_teacher, make_rows, run_training, weights_of
):
    extra = {"num_images": 2, "modality_type_vocab_size": 3} if task == "nlvr2" else {}
    student = make_model(model_class=TASKS[task], **extra)
    teacher = make_teacher(model_class=TASKS[task], **extra)
    student_before, teacher_before = weights_of(student), weights_of(teacher)
    # no weight decay, which would change parameters that the loss does not reach
    run_training(student, task_rows(task, make_rows(4)), teacher=teacher, optim="adamw_torch", weight_decay=0.0)
    assert_same_weights(weights_of(teacher), teacher_before)
    trainable = {name for name, parameter in student.named_parameters() if parameter.requires_grad}
    assert trainable == set(student_before)
    unchanged = {name for name in trainable if torch.equal(student.state_dict()[name], student_before[name])}
    assert unchanged <= WITHOUT_GRADIENT


def test_two_steps_leave_frozen_parameters_alone(make_model, make_rows, run_training, weights_of):
    model = make_model()
    model.vilt.embeddings.requires_grad_(False)
    before = weights_of(model)
    run_training(model, make_rows(4), optim="adamw_torch", weight_decay=0.1)
    for name in before.keys() - WITHOUT_GRADIENT:
        assert torch.equal(model.state_dict()[name], before[name]) == name.startswith("vilt.embeddings."), name


def test_the_optimizer_of_a_trainer_has_a_learning_rate_per_part(make_model, make_teacher, make_rows, run_training):
    model, teacher = make_model(), make_teacher()
    rates = {"learning_rate": 1e-3, "cross_modal_learning_rate": 2e-3, "classifier_learning_rate": 3e-3}
    trainer = run_training(model, make_rows(4), teacher=teacher, weight_decay=0.1, **rates)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found = {names[id(p)]: group for group in trainer.optimizer.param_groups for p in group["params"]}
    assert found.keys() == set(names.values())
    settings = {name: (group["lr"], group["weight_decay"]) for name, group in found.items()}
    assert settings["vilt.embeddings.patch_embeddings.projection.weight"] == (1e-3, 0.1)
    assert settings["vilt.embeddings.cls_token"] == (1e-3, 0.0)
    assert settings["vilt.encoder.layer.2.output.dense.weight"] == (2e-3, 0.1)
    assert settings["vilt.layernorm.weight"] == (2e-3, 0.0)
    assert settings["classifier.3.weight"] == (3e-3, 0.1)
    assert settings["classifier.3.bias"] == (3e-3, 0.0)


def test_a_learning_rate_of_zero_keeps_its_part_as_it_is(make_model, make_rows, run_training, weights_of):
    model = make_model()
    before = weights_of(model)
    run_training(model, make_rows(4), cross_modal_learning_rate=0.0)
    for name, value in weights_of(model).items():
        cross_modal = name.startswith(("vilt.encoder.", "vilt.layernorm.", "vilt.pooler."))
        assert torch.equal(value, before[name]) == cross_modal, name


def test_learning_rates_per_part_also_hold_in_a_second_training_of_a_model_from_model_init(
    make_model, make_rows, make_args
):
    trainer = DistillationTrainer(
        None,
        model_init=lambda: make_model(),
        args=make_args(learning_rate=1e-3, cross_modal_learning_rate=2e-3, classifier_learning_rate=3e-3),
        train_dataset=make_rows(4),
    )
    for _ in range(2):
        trainer.train()
        assert {group["lr"] for group in trainer.optimizer.param_groups} == {1e-3, 2e-3, 3e-3}


# The teacher


def test_the_teacher_is_frozen_and_in_eval_mode_throughout(make_model, make_teacher, make_rows, run_training):
    class Watch(TrainerCallback):
        def __init__(self):
            self.modes = []

        def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
            self.modes.append((model.training, any(module.training for module in teacher.modules())))

    teacher, watch = make_teacher(hidden_dropout_prob=0.5).train(), Watch()
    trainer = run_training(make_model(), make_rows(4), teacher=teacher, callbacks=[watch], eval_dataset=make_rows(2))
    trainer.evaluate()
    assert watch.modes == [(True, False)] * 2
    assert not any(module.training for module in teacher.modules())
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_the_teacher_is_neither_optimised_nor_saved(make_model, make_teacher, make_rows, run_training):
    model, teacher = make_model(), make_teacher()
    trainer = run_training(
        model, make_rows(4), teacher=teacher, optim="adamw_torch", save_strategy="steps", save_steps=2
    )
    optimised = {id(parameter) for group in trainer.optimizer.param_groups for parameter in group["params"]}
    assert optimised == {id(parameter) for parameter in model.parameters()}
    assert optimised.isdisjoint(id(parameter) for parameter in teacher.parameters())
    assert not any("teacher" in name for name, _ in model.named_modules())
    assert not any("teacher" in name for name in model.state_dict())
    checkpoint = Path(trainer.args.output_dir) / "checkpoint-2"
    saved = load_file(checkpoint / "model.safetensors")
    assert_same_weights(saved, dict(model.state_dict()))
    state = torch.load(checkpoint / "optimizer.pt", weights_only=True)
    assert len(state["state"]) == len(list(model.parameters()))
    assert not [path.name for path in checkpoint.rglob("*") if "teacher" in path.name]


# Losses


@pytest.mark.parametrize(("alpha", "temperature"), [(1.0, 1.0), (0.5, 2.0), (0.0, 1.0)])
def test_gradients_of_a_step_are_those_of_task_plus_alpha_distillation(
    alpha, temperature, make_model, make_teacher, make_rows, run_training
):
    student, teacher, rows = make_model(), make_teacher(), make_rows(2)
    expected = gradients_by_hand(student, lambda model: loss_by_hand(model, rows, teacher, alpha, temperature))
    trainer = run_training(student, rows, teacher=teacher, alpha=alpha, temperature=temperature, max_steps=1)
    assert trainer.gradients[0].keys() == expected.keys()
    for name, gradient in trainer.gradients[0].items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}")


def test_the_log_has_each_term_and_their_weighted_sum(
    make_model, make_teacher, make_rows, run_training, training_logs
):
    student, teacher, rows = make_model(), make_teacher(), make_rows(4)
    before = copy.deepcopy(student)
    trainer = run_training(student, rows, teacher=teacher, alpha=0.5, per_device_train_batch_size=4)
    logs = training_logs(trainer)
    assert len(logs) == 2
    for entry in logs:
        assert entry["loss"] == pytest.approx(entry["task_loss"] + 0.5 * entry["distillation_loss"], rel=1e-5)
    assert logs[0]["task_loss"] == pytest.approx(loss_by_hand(before, rows).item(), rel=1e-5)
    assert logs[0]["loss"] == pytest.approx(loss_by_hand(before, rows, teacher, alpha=0.5).item(), rel=1e-5)
    assert logs[0]["distillation_loss"] > 1e-3


def test_a_log_over_several_steps_has_the_mean_of_each_term(
    make_model, make_teacher, make_rows, run_training, training_logs
):
    rows = make_rows(7)
    each = training_logs(run_training(make_model(), rows, teacher=make_teacher(), max_steps=6))
    trainer = run_training(make_model(), rows, teacher=make_teacher(), max_steps=6, logging_steps=3)
    every_third = training_logs(trainer)
    assert [entry["step"] for entry in every_third] == [3, 6]
    for entry, steps in zip(every_third, (each[:3], each[3:]), strict=True):
        for name in ("loss", "task_loss", "distillation_loss"):
            assert entry[name] == pytest.approx(np.mean([step[name] for step in steps]), rel=1e-4), name
        assert entry["loss"] == pytest.approx(entry["task_loss"] + entry["distillation_loss"], rel=1e-5)


def test_steps_after_the_last_log_do_not_leak_into_the_log_of_a_second_training(
    make_model, make_teacher, make_rows, run_training, training_logs
):
    trainer = run_training(make_model(), make_rows(4), teacher=make_teacher(), max_steps=3, logging_steps=2)
    trainer.train()
    entry = training_logs(trainer)[-1]
    assert entry["step"] == 2
    assert entry["loss"] == pytest.approx(entry["task_loss"] + entry["distillation_loss"], rel=1e-5)


def test_without_a_teacher_the_task_loss_stands_alone(make_model, make_rows, run_training, training_logs):
    student, rows = make_model(), make_rows(2)
    expected = gradients_by_hand(student, lambda model: loss_by_hand(model, rows))
    trainer = run_training(student, rows, max_steps=1)
    (entry,) = training_logs(trainer)
    assert "distillation_loss" not in entry
    assert entry["loss"] == pytest.approx(entry["task_loss"], rel=1e-6)
    for name, gradient in trainer.gradients[0].items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-6)


def test_auxiliary_losses_of_the_traces_are_averaged_over_layers_added_and_logged(
    make_model, make_teacher, make_rows, run_training, training_logs
):
    student, teacher, rows = make_model(), make_teacher(), make_rows(2)
    student.vilt.reducer = LossReducer(student.reduction.at("layers"), student.config.hidden_size)
    outputs = copy.deepcopy(student).train()(**batch_of(rows))
    size = sum(trace.losses["size_loss"].item() for trace in outputs.reduction) / 2
    last = outputs.reduction[1].losses["last_loss"].item()

    def whole_loss(model):
        by_layer = [trace.losses for trace in model.train()(**batch_of(rows)).reduction]
        auxiliary = (by_layer[0]["size_loss"] + by_layer[1]["size_loss"]) / 2 + by_layer[1]["last_loss"]
        return loss_by_hand(model, rows, teacher, alpha=0.5) + auxiliary

    expected = gradients_by_hand(student, whole_loss)
    trainer = run_training(student, rows, teacher=teacher, alpha=0.5, max_steps=1)
    (entry,) = training_logs(trainer)
    assert entry["size_loss"] == pytest.approx(size, rel=1e-5)
    assert entry["last_loss"] == pytest.approx(last, rel=1e-5)
    total = entry["task_loss"] + 0.5 * entry["distillation_loss"] + size + last
    assert entry["loss"] == pytest.approx(total, rel=1e-5)
    for name, gradient in trainer.gradients[0].items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-6)


# Accumulation


@pytest.mark.parametrize("examples", [6, 7, 5], ids=["even", "last step of one example", "short last batch"])
@pytest.mark.parametrize("auxiliary", [False, True], ids=["pumer", "auxiliary losses"])
def test_accumulated_small_batches_train_and_log_like_one_large_batch(
    examples, auxiliary, make_model, make_teacher, make_rows, run_training, training_logs, weights_of
):
    def run(batch_size, accumulation):
        model = make_model()
        if auxiliary:
            model.vilt.reducer = LossReducer(model.reduction.at("layers"), model.config.hidden_size)
        return model, run_training(
            model,
            make_rows(examples),
            teacher=make_teacher(),
            alpha=0.5,
            max_steps=-1,
            num_train_epochs=2,
            per_device_train_batch_size=batch_size,
            gradient_accumulation_steps=accumulation,
        )

    (small_model, small), (large_model, large) = run(2, 3), run(6, 1)
    assert small.state.global_step == large.state.global_step == (4 if examples == 7 else 2)
    for ours, theirs in zip(small.gradients, large.gradients, strict=True):
        for name, gradient in ours.items():
            torch.testing.assert_close(gradient, theirs[name], rtol=1e-3, atol=1e-5)
    for name, value in weights_of(small_model).items():
        torch.testing.assert_close(value, weights_of(large_model)[name], rtol=1e-3, atol=1e-5)
    terms = ["loss", "task_loss", "distillation_loss"] + ["size_loss", "last_loss"] * auxiliary
    for ours, theirs in zip(training_logs(small), training_logs(large), strict=True):
        assert [ours[name] for name in terms] == pytest.approx([theirs[name] for name in terms], rel=1e-3)


def test_a_step_weighs_every_example_alike_whatever_the_batch_it_came_in(
    make_model, make_teacher, make_rows, run_training, training_logs
):
    student, teacher, rows = make_model(), make_teacher(), make_rows(5)
    expected = gradients_by_hand(student, lambda model: loss_by_hand(model, rows, teacher))
    loss = loss_by_hand(copy.deepcopy(student), rows, teacher).item()
    trainer = run_training(student, rows, teacher=teacher, max_steps=1, gradient_accumulation_steps=3)
    assert training_logs(trainer)[0]["loss"] == pytest.approx(loss, rel=1e-5)
    for name, gradient in trainer.gradients[0].items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("processes", [1, 2])
def test_the_loss_of_a_batch_is_its_share_of_the_step_over_all_processes(
    processes, make_model, make_rows, make_args, monkeypatch
):
    model, rows = make_model(), make_rows(2)
    trainer = DistillationTrainer(model, args=make_args())
    monkeypatch.setattr(Accelerator, "num_processes", processes)
    trainer.current_gradient_accumulation_steps = 3
    mean = loss_by_hand(model, rows).item()
    # of 8 examples these are 2; the Trainer divides by the steps, and averages over the processes
    loss = trainer.compute_loss(model.train(), batch_of(rows), num_items_in_batch=torch.tensor(8.0))
    assert loss.item() == pytest.approx(mean * 2 / 8 * 3 * processes, rel=1e-5)
    # without a step, or in evaluation, the batch stands alone
    assert trainer.compute_loss(model, batch_of(rows)).item() == pytest.approx(mean, rel=1e-5)
    evaluated = trainer.compute_loss(model.eval(), batch_of(rows), num_items_in_batch=torch.tensor(8.0))
    assert evaluated.item() == pytest.approx(mean, rel=1e-5)


def test_a_step_counts_the_examples_of_every_process_and_a_log_averages_over_them(
    make_model, make_rows, make_args, monkeypatch
):
    model, rows = make_model(), make_rows(2)
    task = loss_by_hand(model, rows).item()
    trainer = DistillationTrainer(model, args=make_args())

    def reduce(accelerator, tensor, reduction="mean"):
        """As if there were a second process, with 6 examples and the value 6."""
        return {"sum": tensor + 6, "mean": (tensor + 6) / 2}[reduction]

    monkeypatch.setattr(Accelerator, "reduce", reduce)
    trainer.current_gradient_accumulation_steps = 1
    batches, number = trainer.get_batch_samples(iter([batch_of(rows)]), 1, torch.device("cpu"))
    assert number.item() == 8
    trainer.compute_loss(model.train(), batches[0], num_items_in_batch=number)
    trainer.log({"loss": 1.0})
    assert trainer.state.log_history[-1]["task_loss"] == pytest.approx((task * 2 / 8 + 6) / 2, rel=1e-5)


def test_examples_are_counted_by_their_labels_and_on_the_device_that_is_asked_for(make_model, make_args):
    trainer = DistillationTrainer(make_model(), args=make_args())
    batches = [{"pixel_values": torch.zeros(6, 3), "labels": torch.zeros(3, 4)}, {"labels": torch.zeros(1, 4)}]
    assert trainer.get_batch_samples(iter(batches), 2, torch.device("cpu"))[1].item() == 4
    assert trainer.get_batch_samples(iter(batches), 2, torch.device("meta"))[1].device.type == "meta"


# Teacher logits in the dataset


def test_teacher_logits_in_the_dataset_train_like_the_live_teacher(
    make_model, make_teacher, make_rows, run_training, training_logs, weights_of
):
    live, cached, teacher, rows = make_model(), make_model(), make_teacher(), make_rows(5)
    live_trainer = run_training(live, rows, teacher=teacher, max_steps=4)
    cached_trainer = run_training(cached, with_teacher_logits(rows, teacher), max_steps=4, remove_unused_columns=False)
    for name, value in weights_of(live).items():
        torch.testing.assert_close(weights_of(cached)[name], value, rtol=1e-3, atol=1e-5)
    for ours, theirs in zip(training_logs(cached_trainer), training_logs(live_trainer), strict=True):
        assert ours["distillation_loss"] == pytest.approx(theirs["distillation_loss"], rel=1e-3)


def test_teacher_logits_in_the_dataset_take_the_teachers_place(
    make_model, make_teacher, make_rows, run_training, training_logs
):
    calls = []
    teacher, rows = make_teacher(), make_rows(2)
    rows = [{**row, "teacher_logits": torch.zeros(4)} for row in rows]
    teacher.register_forward_hook(lambda *_: calls.append(1))
    student = make_model()
    uniform = torch.full((2, 4), 0.25)
    log_student = copy.deepcopy(student).train()(**batch_of(make_rows(2))).logits.log_softmax(-1)
    expected = (uniform * (uniform.log() - log_student)).sum(-1).mean().item()
    trainer = run_training(student, rows, teacher=teacher, max_steps=1, remove_unused_columns=False)
    assert not calls
    assert training_logs(trainer)[0]["distillation_loss"] == pytest.approx(expected, rel=1e-5)


def test_teacher_logits_are_not_taken_for_an_unused_column(
    make_model, make_teacher, make_rows, run_training, training_logs
):
    rows = with_teacher_logits(make_rows(4), make_teacher())
    trainer = run_training(make_model(), rows)  # remove_unused_columns is True by default
    assert trainer.args.remove_unused_columns
    assert all("distillation_loss" in entry for entry in training_logs(trainer))


@pytest.mark.parametrize("teacher_as", ["model", "column"])
def test_evaluation_reports_metrics_and_the_task_loss_alone(
    teacher_as, make_model, make_teacher, make_rows, make_args
):
    student, teacher, rows = make_model(), make_teacher(), make_rows(5)
    seen = {}

    def compute_metrics(prediction):
        seen["logits"], seen["labels"] = prediction.predictions, prediction.label_ids
        return {"score": 0.25}

    trainer = DistillationTrainer(
        student,
        teacher=teacher if teacher_as == "model" else None,
        args=make_args(remove_unused_columns=False),
        eval_dataset=with_teacher_logits(rows, teacher) if teacher_as == "column" else rows,
        compute_metrics=compute_metrics,
    )
    metrics = trainer.evaluate()
    np.testing.assert_allclose(seen["logits"], logits_of(student, rows).numpy(), rtol=1e-4, atol=1e-5)
    labels = torch.stack([row["labels"] for row in rows])
    np.testing.assert_array_equal(seen["labels"], labels.numpy())
    task = F.binary_cross_entropy_with_logits(logits_of(student, rows), labels, reduction="sum") / 5
    assert metrics["eval_loss"] == pytest.approx(task.item(), rel=1e-4)
    assert metrics["eval_score"] == 0.25


def test_evaluation_within_training_leaves_the_training_log_alone(
    make_model, make_teacher, make_rows, run_training, training_logs
):
    rows = with_teacher_logits(make_rows(4), make_teacher())
    plain = run_training(make_model(), rows, max_steps=4, logging_steps=2, remove_unused_columns=False)
    evaluated = run_training(
        make_model(),
        rows,
        eval_dataset=rows[:3],
        max_steps=4,
        logging_steps=2,
        eval_strategy="steps",
        eval_steps=1,
        remove_unused_columns=False,
    )
    assert sum("eval_loss" in entry for entry in evaluated.state.log_history) == 4
    for ours, theirs in zip(training_logs(evaluated), training_logs(plain), strict=True):
        for name in ("loss", "task_loss", "distillation_loss"):
            assert ours[name] == pytest.approx(theirs[name], rel=1e-6)


@pytest.mark.parametrize("extra", [{}, {"teacher_logits": torch.zeros(4)}], ids=["plain", "teacher logits"])
def test_predict_gives_logits_of_rows_without_labels(extra, make_model, make_rows, make_args):
    model = make_model()
    rows = [{**row, **extra} for row in make_rows(3)]
    for row in rows:
        del row["labels"]
    output = DistillationTrainer(model, args=make_args(remove_unused_columns=False)).predict(rows)
    assert output.label_ids is None
    np.testing.assert_allclose(output.predictions, logits_of(model, rows).numpy(), rtol=1e-4, atol=1e-5)


# Errors


def test_the_model_cannot_be_its_own_teacher(make_model, make_args):
    model = make_model()
    with pytest.raises(ValueError, match="same object"):
        DistillationTrainer(model, teacher=model, args=make_args())
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("names", [["yes", "no", "red"], ["no", "yes", "red", "blue"]], ids=["fewer", "other order"])
def test_a_teacher_with_other_labels_is_an_error(names, make_model, make_teacher, make_args):
    labels = ["yes", "no", "red", "blue"]
    student, teacher = make_model(num_labels=len(labels)), make_teacher(num_labels=len(names))
    student.config.id2label, teacher.config.id2label = dict(enumerate(labels)), dict(enumerate(names))
    with pytest.raises(ValueError, match=rf"same labels.*{len(names)} entries.*4"):
        DistillationTrainer(student, teacher=teacher, args=make_args())


def test_plain_training_arguments_are_an_error(make_model, make_args):
    with pytest.raises(ValueError, match=r"args=TrainingArguments\(.*DistillationTrainingArguments"):
        DistillationTrainer(make_model(), args=make_args(TrainingArguments))


def test_a_batch_without_labels_is_an_error_that_says_so(make_model, make_teacher, make_rows, run_training):
    rows = [{name: value for name, value in row.items() if name != "labels"} for row in make_rows(2)]
    with pytest.raises(ValueError, match="no labels"):
        run_training(make_model(), rows, teacher=make_teacher())


@pytest.mark.parametrize(
    "values",
    [
        {"alpha": -0.1},
        {"temperature": 0.0},
        {"temperature": -1.0},
        {"cross_modal_learning_rate": -1e-5},
        {"classifier_learning_rate": -1e-5},
    ],
)
def test_an_argument_out_of_range_is_an_error_that_names_it(values, make_args):
    ((name, value),) = values.items()
    with pytest.raises(ValueError, match=f"{name}={value}"):
        make_args(**values)


# Resuming, and other ways to run


@pytest.mark.parametrize("politely", [True, False], ids=["stopped", "interrupted"])
@pytest.mark.parametrize("stop", [3, 4], ids=["within an epoch", "at the end of an epoch"])
def test_a_resumed_training_ends_with_the_weights_of_an_uninterrupted_one(
    stop, politely, make_model, make_teacher, make_rows, run_training, training_logs, weights_of, tmp_path
):
    def run(model, folder, callbacks=(), resume=None):
        return run_training(
            model,
            make_rows(8),
            teacher=make_teacher(hidden_dropout_prob=0.1),
            callbacks=[ReductionWarmupCallback(5, num_stages=5), *callbacks],
            resume=resume,
            output_dir=str(tmp_path / folder),
            max_steps=6,
            optim="adamw_torch",
            learning_rate=1e-2,
            lr_scheduler_type="linear",
            weight_decay=0.01,
            save_strategy="steps",
            save_steps=stop,
        )

    dropout = {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}
    whole = make_model(**dropout)
    whole_trainer = run(whole, "whole")
    try:
        run(make_model(**dropout), "parts", callbacks=[StopAt(stop, politely)])
    except KeyboardInterrupt:
        assert not politely
    assert not (tmp_path / "parts" / "checkpoint-6").exists()
    resumed = make_model(seed=1, **dropout)  # other weights: those of the checkpoint must be read
    trainer = run(resumed, "parts", resume=str(tmp_path / "parts" / f"checkpoint-{stop}"))
    assert trainer.state.global_step == 6
    assert_same_weights(weights_of(resumed), weights_of(whole))
    names = ("step", "loss", "task_loss", "distillation_loss", "learning_rate")
    logged = [[[entry[name] for name in names] for entry in training_logs(t)] for t in (whole_trainer, trainer)]
    assert logged[0] == logged[1]


def test_gradient_checkpointing_computes_layers_twice_and_trains_the_same(
    make_model, make_teacher, make_rows, run_training, weights_of
):
    passes, runs = [], []
    for enabled in (False, True):
        model, count = make_model(), []
        model.vilt.encoder.layer[1].layernorm_after.register_forward_hook(lambda *_, count=count: count.append(1))
        run_training(model, make_rows(4), teacher=make_teacher(), **{CHECKPOINTING: enabled})
        passes.append(len(count))
        runs.append(weights_of(model))
    assert passes == [2, 4]
    for name, value in runs[0].items():
        torch.testing.assert_close(runs[1][name], value, rtol=1e-5, atol=1e-7)


def test_bf16_trains_float32_weights_towards_the_same_loss(
    make_model, make_teacher, make_rows, run_training, training_logs, weights_of
):
    dtypes = []
    teacher, student, rows = make_teacher(), make_model(), make_rows(4)
    before = weights_of(student)
    teacher.vilt.encoder.layer[0].output.dense.register_forward_hook(lambda *args: dtypes.append(args[-1].dtype))
    trainer = run_training(student, rows, teacher=teacher, bf16=True, learning_rate=1e-3)
    exact = run_training(make_model(), rows, teacher=make_teacher(), learning_rate=1e-3)
    assert dtypes == [torch.bfloat16] * 2  # the teacher too
    assert all(value.dtype == torch.float32 for value in student.state_dict().values())
    assert not torch.equal(student.classifier[0].weight, before["classifier.0.weight"])
    ours, theirs = training_logs(trainer), training_logs(exact)
    for name in ("loss", "task_loss", "distillation_loss"):
        mean = statistics.mean(step[name] for step in theirs)
        assert statistics.mean(step[name] for step in ours) == pytest.approx(mean, rel=0.1), name
        for our, their in zip(ours, theirs, strict=True):  # of the sum: CPUs round bfloat16 differently
            assert our[name] == pytest.approx(their[name], abs=0.02 * their["loss"]), name
    assert all(step["distillation_loss"] > 0.05 * step["loss"] for step in ours)


def test_a_saved_run_holds_its_distillation_arguments(make_model, make_rows, run_training):
    trainer = run_training(make_model(), make_rows(2), alpha=0.5, temperature=2.0, max_steps=1)
    trainer.save_model()
    saved = torch.load(Path(trainer.args.output_dir) / "training_args.bin", weights_only=False)
    assert isinstance(saved, DistillationTrainingArguments)
    assert (saved.alpha, saved.temperature) == (0.5, 2.0)


# Collators


def test_evaluation_has_a_collator_of_its_own(make_model, make_rows, make_args):
    calls = []

    def collator(name):
        def collate(rows):
            calls.append(name)
            return default_data_collator(rows)

        return collate

    trainer = DistillationTrainer(
        make_model(),
        args=make_args(max_steps=2, eval_strategy="steps", eval_steps=2),
        train_dataset=make_rows(8),
        eval_dataset=make_rows(3),
        data_collator=collator("train"),
        eval_collator=collator("eval"),
    )
    trainer.train()
    assert set(calls) == {"train", "eval"}
    del calls[:]
    trainer.predict(make_rows(3))
    assert set(calls) == {"eval"}
    del calls[:]
    next(iter(trainer.get_train_dataloader()))
    assert set(calls) == {"train"}


# The processor that is saved


def test_the_processor_of_our_collator_is_saved(make_args, tmp_path):
    model, processor = tiny("vilt")
    collator = VqaCollator(Encoder(processor), LABELS["vqa"])
    trainer = DistillationTrainer(model, args=make_args(), data_collator=collator)
    trainer.save_model(str(tmp_path / "model"))
    saved = AutoProcessor.from_pretrained(tmp_path / "model")
    assert saved.tokenizer.get_vocab() == processor.tokenizer.get_vocab()
    _, other = tiny("vilt")
    given = DistillationTrainer(model, args=make_args(), data_collator=collator, processing_class=other)
    assert given.processing_class is other


def test_what_is_saved_says_how_the_collator_makes_inputs(make_args, tmp_path):
    model, processor = tiny("vilt")
    record = EncodingRecord(9, keep_aspect_ratio=True)
    collator = VqaCollator(Encoder(processor, record), LABELS["vqa"])
    for number, given in enumerate((None, processor)):
        trainer = DistillationTrainer(model, args=make_args(), data_collator=collator, processing_class=given)
        trainer.save_model(str(tmp_path / str(number)))
        assert saved_record(tmp_path / str(number)) == record


def test_a_model_that_is_saved_without_a_processor_is_told_once(make_model, make_rows, run_training, monkeypatch):
    told = []
    monkeypatch.setattr("pumer_hf.hub.trainer.logger.warning_once", told.append)
    trainer = run_training(make_model(), make_rows(4), save_strategy="steps", save_steps=1)
    trainer.save_model()
    assert len(set(told)) == 1
    assert "processing_class is None" in told[0]
    assert "save_pretrained" in told[0]
