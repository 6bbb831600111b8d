"""`DistillationTrainer` with decoder models: the losses, the accounting, cached teachers, adapters, checkpoints."""

import copy
from pathlib import Path

import pytest
import torch
from models.decoders.oracle import NAMES
from models.decoders.tiny import tiny_model
from tiny import assert_same_weights
from torch.nn import functional as F
from training.decoder_training import PUMER, ROWS, Collator, answers_of, kept_columns, student

from pumer_hf import DistillationTrainer
from pumer_hf.models.families import DECODERS


@pytest.fixture
def run(make_args):
    """Train a decoder and return the trainer, which has `gradients`, a dict by name for each step."""
    from tiny_training import Recorder

    def run(model, rows, *, teacher=None, name="llava", pad_left=False, resume=None, callbacks=(), **arguments):
        recorder, given = Recorder(), {"remove_unused_columns": False, "max_steps": 1, **arguments}
        trainer = DistillationTrainer(
            model,
            teacher=teacher,
            args=make_args(**given),
            train_dataset=rows,
            eval_dataset=rows[:2],
            data_collator=Collator(name, pad_left),
            callbacks=[recorder, *callbacks],
        )
        trainer.gradients = recorder.gradients
        trainer.train(resume_from_checkpoint=resume)
        return trainer

    return run


def losses_by_hand(model, teacher, batch, temperature=1.0):
    """Task loss and divergence, written without the package's loss functions. The model may cut the prompt."""
    labels = batch["labels"]
    given = {name: value for name, value in batch.items() if name != "labels"}
    outputs = model.train()(**given)
    keep = kept_columns(batch, outputs.reduction) if "reduction" in outputs else batch["attention_mask"].bool()
    found, wanted = answers_of(outputs.logits, labels, keep)
    with torch.no_grad():
        whole = teacher.eval()(**given).logits
    target, _ = answers_of(whole, labels, batch["attention_mask"].bool())
    target = (target / temperature).log_softmax(-1)
    difference = target - (found / temperature).log_softmax(-1)
    return F.cross_entropy(found, wanted), temperature**2 * (target.exp() * difference).sum(-1).mean()


# Losses


@pytest.mark.parametrize("name", NAMES)
def test_a_step_has_the_task_loss_and_the_divergence_at_the_answers(name, run, training_logs):
    model, teacher, rows = student(name), tiny_model(name), ROWS[:3]
    task, divergence = losses_by_hand(copy.deepcopy(model), teacher, Collator(name)(rows))
    trainer = run(model, rows, teacher=teacher, name=name, alpha=0.5, per_device_train_batch_size=3)
    (entry,) = training_logs(trainer)
    assert entry["task_loss"] == pytest.approx(task.item(), rel=1e-4)
    assert entry["distillation_loss"] == pytest.approx(divergence.item(), rel=1e-3)
    assert entry["distillation_loss"] > 1e-3
    assert entry["loss"] == pytest.approx((task + 0.5 * divergence).item(), rel=1e-4)


@pytest.mark.parametrize("reduction", [PUMER, None], ids=["cut", "whole"])
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_gradients_are_those_of_task_plus_alpha_distillation(temperature, reduction, run):
    model, teacher, rows = student(reduction=reduction), tiny_model("llava"), ROWS[:3]
    plain = copy.deepcopy(model)
    task, divergence = losses_by_hand(plain, teacher, Collator("llava")(rows), temperature)
    (task + 0.5 * divergence).backward()
    trainer = run(model, rows, teacher=teacher, alpha=0.5, temperature=temperature, per_device_train_batch_size=3)
    expected = {name: value.grad for name, value in plain.named_parameters() if value.grad is not None}
    assert trainer.gradients[0].keys() == expected.keys()
    for name, gradient in trainer.gradients[0].items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-3, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl"])
def test_the_side_of_the_padding_does_not_matter(name, run, training_logs):
    entries = []
    for pad_left in (False, True):
        trainer = run(
            student(name),
            ROWS[:3],
            teacher=tiny_model(name),
            name=name,
            pad_left=pad_left,
            learning_rate=0.0,
            per_device_train_batch_size=3,
        )
        entries += training_logs(trainer)
    for term in ("task_loss", "distillation_loss"):
        assert entries[0][term] == pytest.approx(entries[1][term], rel=1e-3)


# Accumulation


@pytest.mark.parametrize("examples", [6, 7, 5], ids=["even", "last step of one example", "short last batch"])
def test_accumulated_small_batches_train_and_log_like_one_large_batch(examples, run, training_logs, weights_of):
    def train(batch_size, accumulation):
        model = student()
        return model, run(
            model,
            ROWS[:examples],
            teacher=tiny_model("llava"),
            alpha=0.5,
            max_steps=-1,
            num_train_epochs=2,
            per_device_train_batch_size=batch_size,
            gradient_accumulation_steps=accumulation,
        )

    (small_model, small), (large_model, large) = train(2, 3), train(6, 1)
    for ours, theirs in zip(small.gradients, large.gradients, strict=True):
        for name, gradient in ours.items():
            torch.testing.assert_close(gradient, theirs[name], rtol=1e-3, atol=1e-4)
    for name, value in weights_of(small_model).items():
        torch.testing.assert_close(value, weights_of(large_model)[name], rtol=1e-3, atol=1e-4)
    terms = ["loss", "task_loss", "distillation_loss"]
    for ours, theirs in zip(training_logs(small), training_logs(large), strict=True):
        assert [ours[name] for name in terms] == pytest.approx([theirs[name] for name in terms], rel=1e-3)


# Errors


def test_the_class_of_transformers_is_named_with_the_one_to_load(make_args):
    with pytest.raises(ValueError, match="LlavaForConditionalGeneration.*load it as PuMerLlava"):
        DistillationTrainer(tiny_model("llava"), args=make_args())
    assert DECODERS


def test_saved(run):
    trainer = run(student(), ROWS[:2], save_strategy="steps", save_steps=1)
    assert (Path(trainer.args.output_dir) / "checkpoint-1").is_dir()
    assert assert_same_weights
