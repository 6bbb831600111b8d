"""Every argument that `Trainer.compute_loss` reads has its effect, or is an error that names it."""

import copy
import time

import numpy as np
import pytest
import torch
from accelerate import ParallelismConfig
from torch.nn import functional as F
from transformers import default_data_collator

from pumer_hf import DistillationTrainer, PuMerViltForImageAndTextRetrieval, PuMerViltForVisualEntailment

CLASSES = {"entailment": PuMerViltForVisualEntailment, "retrieval": PuMerViltForImageAndTextRetrieval}


def rows_of(task, rows):
    """The same examples with classes as labels; of retrieval, with two candidate images."""
    rows = [{**row, "labels": torch.tensor(index % 2)} for index, row in enumerate(rows)]
    if task == "entailment":
        return rows
    return [{**row, "pixel_values": torch.stack([row["pixel_values"], row["pixel_values"].flip(1)])} for row in rows]


def logits_of(model, rows):
    batch = default_data_collator(rows)
    labels = batch.pop("labels")
    return model(**batch).logits, labels


def parameters_of(optimizer):
    return {parameter for group in optimizer.param_groups for parameter in group["params"]}


def squared_error(outputs, labels, num_items_in_batch=None):
    """A loss as the documentation of `Trainer` asks for: the sum over the batch, divided by what the step holds."""
    loss = (outputs.logits - labels).square().sum()
    return loss / (len(labels) if num_items_in_batch is None else num_items_in_batch)


def divergence(student, teacher):
    teacher = teacher.softmax(-1)
    return (teacher * (teacher.log() - student.log_softmax(-1))).sum(-1).mean()


@pytest.fixture
def train(run_training):
    """One step over all rows, in batches of `batch_size`, of a copy of the model."""

    def run(model, rows, batch_size=2, **arguments):
        return run_training(
            copy.deepcopy(model),
            rows,
            max_steps=1,
            per_device_train_batch_size=batch_size,
            gradient_accumulation_steps=-(-len(rows) // batch_size),
            **arguments,
        )

    return run


def assert_gradients(trainer, model, loss):
    loss.backward()
    (found,) = trainer.gradients
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad, rtol=1e-3, atol=1e-5, msg=lambda m, n=name: n + m)


@pytest.mark.parametrize("batch_size", [2, 5])
def test_compute_loss_func_takes_the_place_of_the_models_loss(batch_size, make_model, make_teacher, make_rows, train):
    model, teacher, rows = make_model(), make_teacher(), make_rows(5)
    trainer = train(model, rows, batch_size, teacher=teacher, loss_func=squared_error, alpha=0.5)
    log = trainer.state.log_history[0]
    logits, labels = logits_of(model, rows)
    task = (logits - labels).square().sum(-1).mean()
    distillation = divergence(logits, logits_of(teacher, rows)[0].detach())
    assert log["task_loss"] == pytest.approx(task.item(), rel=1e-4)
    assert log["loss"] == pytest.approx((task + 0.5 * distillation).item(), rel=1e-4)
    assert_gradients(trainer, model, task + 0.5 * distillation)


def test_compute_loss_func_is_the_loss_of_evaluation_too(make_model, make_rows, make_args):
    model, rows = make_model().eval(), make_rows(5)
    trainer = DistillationTrainer(model, args=make_args(), eval_dataset=rows, compute_loss_func=squared_error)
    logits, labels = logits_of(model, rows)
    expected = (logits - labels).square().sum(-1).mean().item()
    assert trainer.evaluate()["eval_loss"] == pytest.approx(expected, rel=1e-4)


def test_compute_loss_func_sees_how_many_examples_the_step_or_the_batch_of_an_evaluation_has(
    make_model, make_rows, train
):
    seen = []

    def counted(outputs, labels, num_items_in_batch):
        seen.append((len(labels), int(num_items_in_batch)))
        return squared_error(outputs, labels, num_items_in_batch)

    trainer = train(make_model(), make_rows(5), loss_func=counted)
    assert seen == [(2, 5), (2, 5), (1, 5)]
    trainer.evaluate(make_rows(3))
    assert seen[3:] == [(2, 2), (1, 1)]


def test_compute_loss_func_may_do_without_labels(make_model, make_rows, train):
    rows = [{name: value for name, value in row.items() if name != "labels"} for row in make_rows(4)]
    batch = default_data_collator(rows)
    model = make_model()

    def confidence(outputs, labels, num_items_in_batch):
        assert labels is None
        return outputs.logits.square().sum() / num_items_in_batch

    trainer = train(model, rows, loss_func=confidence)
    expected = model(**batch).logits.square().sum() / 4
    assert trainer.state.log_history[0]["task_loss"] == pytest.approx(expected.item(), rel=1e-4)


def test_compute_loss_func_sees_labels_that_the_model_has_no_use_for(make_model, make_rows, train):
    model, rows = make_model(), make_rows(4)
    ratings = [{**row, "labels": torch.tensor(index / 2)} for index, row in enumerate(rows)]  # the model wants (B, 4)

    def rating_error(outputs, labels, num_items_in_batch):
        return (outputs.logits.mean(-1) - labels).square().sum() / num_items_in_batch

    trainer = train(model, ratings, loss_func=rating_error)
    logits, labels = logits_of(model, ratings)
    expected = (logits.mean(-1) - labels).square().mean().item()
    assert trainer.state.log_history[0]["task_loss"] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("task", CLASSES)
def test_label_smoothing_is_that_of_the_paper(task, make_model, make_rows, make_args, train):
    model, rows = make_model(model_class=CLASSES[task]), rows_of(task, make_rows(5))
    trainer = train(model, rows, label_smoothing_factor=0.2)
    logits, labels = logits_of(model, rows)
    loss = F.cross_entropy(logits, labels, label_smoothing=0.2)
    assert trainer.state.log_history[0]["loss"] == pytest.approx(loss.item(), rel=1e-4)
    assert_gradients(trainer, model, loss)
    trainer = DistillationTrainer(model, args=make_args(label_smoothing_factor=0.2), eval_dataset=rows)
    assert trainer.evaluate()["eval_loss"] == pytest.approx(loss.item(), rel=1e-4)


def test_label_smoothing_is_refused_where_labels_are_soft_already(make_model, make_args):
    with pytest.raises(ValueError, match=r"label_smoothing_factor=0.1.*PuMerViltForQuestionAnswering"):
        DistillationTrainer(make_model(), args=make_args(label_smoothing_factor=0.1))


def test_label_smoothing_is_refused_beside_a_loss_that_would_ignore_it(make_model, make_args):
    with pytest.raises(ValueError, match=r"label_smoothing_factor=0.1.*compute_loss_func"):
        DistillationTrainer(
            make_model(model_class=PuMerViltForVisualEntailment),
            args=make_args(label_smoothing_factor=0.1),
            compute_loss_func=squared_error,
        )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"label_names": ["answers"]}, r"label_names=\['answers'\].*labels"),
        ({"average_tokens_across_devices": False}, "average_tokens_across_devices=False"),
        ({"use_liger_kernel": True}, "use_liger_kernel=True"),
        ({"push_to_hub": True, "hub_model_id": "bad name"}, "hub_model_id='bad name'"),
        ({"parallelism_config": ParallelismConfig(sp_backend="deepspeed", sp_size=2)}, "sp_size=2"),
        ({"parallelism_config": ParallelismConfig(cp_size=2)}, "cp_size=2"),
    ],
)
def test_what_would_have_no_effect_is_refused(arguments, message, make_args):
    with pytest.raises(ValueError, match=message):
        make_args(**arguments)


def test_labels_is_a_label_name(make_args):
    assert make_args(label_names=["labels"]).label_names == ["labels"]


def test_one_process_with_several_gpus_is_refused(make_model, make_args):
    args = make_args()
    args._n_gpu = 1
    DistillationTrainer(make_model(), args=args)
    args._n_gpu = 2
    with pytest.raises(ValueError, match=r"2 GPUs.*accelerate launch.*CUDA_VISIBLE_DEVICES"):
        DistillationTrainer(make_model(), args=args)


@pytest.mark.parametrize("name", ["cross_modal_learning_rate", "classifier_learning_rate"])
def test_a_rate_of_a_part_is_refused_beside_an_optimizer(name, make_model, make_args):
    model = make_model()
    for given in (
        {"optimizers": (torch.optim.SGD(model.parameters(), lr=0.1), None)},
        {"optimizer_cls_and_kwargs": (torch.optim.SGD, {"lr": 0.1})},
    ):
        with pytest.raises(ValueError, match=rf"{name}=0.5.*{next(iter(given))}"):
            DistillationTrainer(model, args=make_args(**{name: 0.5}), **given)


def test_to_share_out_the_teacher_is_refused_where_one_process_trains_alone(make_model, make_teacher, make_args):
    with pytest.raises(ValueError, match="shard_teacher=True"):
        DistillationTrainer(make_model(), teacher=make_teacher(), args=make_args(shard_teacher=True))


def test_other_rows_than_those_of_the_trainer_can_be_loaded(make_model, make_rows, make_args):
    trainer = DistillationTrainer(make_model(), args=make_args(), eval_dataset=make_rows(4))
    rows = make_rows(3, seed=1)
    for loader in (
        trainer.get_eval_dataloader(rows),
        trainer.get_eval_dataloader(eval_dataset=rows),
        trainer.get_test_dataloader(rows),
        trainer.get_test_dataloader(test_dataset=rows),
    ):
        found = torch.cat([batch["pixel_values"] for batch in loader])
        assert torch.equal(found, torch.stack([row["pixel_values"] for row in rows]))


def test_predictions_leave_out_the_outputs_that_are_named(make_model, make_rows, make_args):
    model = make_model()
    model.config.output_hidden_states = True
    trainer, rows = DistillationTrainer(model, args=make_args()), make_rows(2)
    logits, hidden_states = trainer.predict(rows, ignore_keys=["reduction"]).predictions
    assert len(hidden_states) == model.config.num_hidden_layers + 1
    np.testing.assert_array_equal(trainer.predict(rows).predictions, logits)  # as the config says


def test_a_checkpoint_to_resume_from_can_be_given_either_way(make_model, make_rows, make_args):
    trainer = DistillationTrainer(make_model(), args=make_args(), train_dataset=make_rows(4))
    with pytest.raises(ValueError, match="missing-checkpoint"):
        trainer.train("missing-checkpoint")
    with pytest.raises(ValueError, match="missing-checkpoint"):
        trainer.train(resume_from_checkpoint="missing-checkpoint")


def test_a_log_has_the_speed_since_the_start_that_it_is_given(make_model, make_args):
    trainer = DistillationTrainer(make_model(), args=make_args(include_num_input_tokens_seen="all"))
    trainer._initial_num_input_tokens_seen = 0
    trainer.state.num_input_tokens_seen = 120
    trainer.log({"loss": 1.0}, time.time() - 60)
    assert trainer.state.log_history[-1]["train_tokens_per_second"] == pytest.approx(2, rel=0.1)


# Optimizers


def test_an_optimizer_class_that_is_given_is_the_one(make_model, make_args):
    model, other = make_model(), make_model()
    given = torch.optim.RMSprop, {"lr": 0.25}
    for argument, expected in ((None, model), (other, other)):
        trainer = DistillationTrainer(model, args=make_args(), optimizer_cls_and_kwargs=given)
        optimizer = trainer.create_optimizer(argument)
        assert type(optimizer) is torch.optim.RMSprop
        assert {group["lr"] for group in optimizer.param_groups} == {0.25}
        assert parameters_of(optimizer) == set(expected.parameters())


def test_the_optimizer_is_of_the_model_that_is_given(make_model, make_args):
    model, other = make_model(), make_model()
    for argument, expected in ((None, model), (other, other)):
        optimizer = DistillationTrainer(model, args=make_args()).create_optimizer(argument)
        assert parameters_of(optimizer) == set(expected.parameters())


def test_an_optimizer_that_takes_its_parameters_from_the_model_keeps_them(make_model, make_args, monkeypatch):
    """As GaLore, LOMO and APOLLO do."""

    def chosen(args, model=None):
        return torch.optim.SGD, {"lr": args.learning_rate, "params": list(model.classifier.parameters())}

    trainer = DistillationTrainer(make_model(), args=make_args(learning_rate=0.25))
    monkeypatch.setattr(trainer, "get_optimizer_cls_and_kwargs", chosen)
    optimizer = trainer.create_optimizer()
    assert parameters_of(optimizer) == set(trainer.model.classifier.parameters())
    assert optimizer.param_groups[0]["lr"] == 0.25


# model_init


def test_model_init_needs_no_model_before_it(make_model, make_teacher, make_rows, make_args):
    made = []

    def model_init():
        made.append(make_model())
        return made[-1]

    trainer = DistillationTrainer(
        model_init=model_init, teacher=make_teacher(), args=make_args(), train_dataset=make_rows(4)
    )
    trainer.train()
    assert trainer.model is made[-1]
    assert len(made) == 2
    assert any("distillation_loss" in entry for entry in trainer.state.log_history)
    assert trainer.card.reduction == made[-1].config.reduction


def test_model_init_sees_the_trial(make_model, make_args):
    trainer = DistillationTrainer(
        model_init=lambda trial: make_model(hidden_dropout_prob=trial["dropout"] if trial else 0.0), args=make_args()
    )
    assert trainer.call_model_init({"dropout": 0.25}).config.hidden_dropout_prob == 0.25


@pytest.mark.parametrize("wrong", [1, 2], ids=["at first", "of a later trial"])
def test_each_model_of_model_init_is_compared_with_the_teacher(wrong, make_model, make_teacher, make_rows, make_args):
    made = []

    def model_init(trial):
        made.append(make_model(num_labels=3 if len(made) + 1 == wrong else 4))
        return made[-1]

    teacher = make_teacher()
    with pytest.raises(ValueError, match=r"same labels.*4 entries.*3"):
        DistillationTrainer(
            model_init=model_init, teacher=teacher, args=make_args(), train_dataset=make_rows(4)
        ).train()
    assert len(made) == wrong
    with pytest.raises(ValueError, match="same object"):
        DistillationTrainer(model_init=lambda: teacher, teacher=teacher, args=make_args())


def test_a_trainer_needs_a_model_or_model_init(make_args):
    with pytest.raises((ValueError, RuntimeError), match="model_init"):
        DistillationTrainer(args=make_args())
