"""Fixtures of the tests of training and recipes: a tiny ViLT, its data and its arguments."""

import pytest
import torch
from tiny import PUMER, vilt_fields
from transformers import TrainerCallback

from pumer_hf import (
    DistillationTrainer,
    DistillationTrainingArguments,
    PuMerViltConfig,
    PuMerViltForQuestionAnswering,
)
from pumer_hf.recipes.stages import train_stage
from pumer_hf.training.scorer import add_scorer

NUM_TEXT, NUM_IMAGE, IMAGE_SIZE, NUM_LABELS = 8, 17, 32, 4
REDUCTION = {**PUMER, "text_merge_ratio": 0.25}


def tiny_config(**overrides):
    values = {
        "vocab_size": 30,
        "max_position_embeddings": NUM_TEXT,
        "image_size": IMAGE_SIZE,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "initializer_range": 0.15,
        "num_labels": NUM_LABELS,
        "reduction": REDUCTION,
    }
    return PuMerViltConfig(**vilt_fields(**{**values, **overrides}))


@pytest.fixture
def make_model():
    def make(seed=0, model_class=PuMerViltForQuestionAnswering, **config):
        torch.manual_seed(seed)
        return model_class(tiny_config(**config))

    return make


SCORER_PART = {"method": "lookahead", "site": "inputs", "keep_ratio": 0.25, "rank": 8, "target_layer": 1}


@pytest.fixture
def base(make_model):
    """A model with a new scorer, which predicts layer 1."""
    model = make_model(reduction=None).eval()
    torch.manual_seed(1)
    add_scorer(model, SCORER_PART)
    return model


@pytest.fixture
def make_teacher(make_model):
    def make(seed=100, **kwargs):
        return make_model(seed=seed, reduction=None, **kwargs)

    return make


@pytest.fixture
def make_rows():
    """VQA examples with padding and soft targets; `NUM_TEXT` text tokens and `NUM_IMAGE` image tokens each."""

    def make(number, seed=0):
        generator = torch.Generator().manual_seed(seed)
        rows = []
        for index in range(number):
            mask = torch.ones(NUM_TEXT, dtype=torch.long)
            mask[NUM_TEXT - index % 3 :] = 0
            rows.append(
                {
                    "input_ids": torch.randint(1, 30, (NUM_TEXT,), generator=generator) * mask,
                    "attention_mask": mask,
                    "pixel_values": torch.randn(3, IMAGE_SIZE, IMAGE_SIZE, generator=generator),
                    "labels": torch.rand(NUM_LABELS, generator=generator),
                }
            )
        return rows

    return make


@pytest.fixture
def make_args(tmp_path):
    """Plain gradient steps at a constant rate, unless told otherwise."""

    def make(arguments_class=DistillationTrainingArguments, **overrides):
        values = {
            "output_dir": str(tmp_path / "run"),
            "report_to": [],
            "use_cpu": True,
            "dataloader_pin_memory": False,
            "disable_tqdm": True,
            "per_device_train_batch_size": 2,
            "per_device_eval_batch_size": 2,
            "max_steps": 2,
            "learning_rate": 0.05,
            "lr_scheduler_type": "constant",
            "optim": "sgd",
            "max_grad_norm": 0.0,
            "logging_steps": 1,
            "save_strategy": "no",
        }
        return arguments_class(**{**values, **overrides})

    return make


class Recorder(TrainerCallback):
    """Keeps the gradients of every optimizer step."""

    def __init__(self):
        self.gradients = []

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        self.gradients.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})


@pytest.fixture
def run_training(make_args):
    """Train `model` and return the trainer, which has `gradients`, a dict by name for each step."""

    def run(model, rows, *, teacher=None, callbacks=(), resume=None, eval_dataset=None, loss_func=None, **arguments):
        recorder = Recorder()
        trainer = DistillationTrainer(
            model,
            teacher=teacher,
            args=make_args(**arguments),
            train_dataset=rows,
            eval_dataset=eval_dataset,
            compute_loss_func=loss_func,
            callbacks=[recorder, *callbacks],
        )
        trainer.gradients = recorder.gradients
        trainer.train(resume_from_checkpoint=resume)
        return trainer

    return run


@pytest.fixture
def training_logs():
    """The entries of a trainer's log that report the training loss."""

    def entries(trainer):
        return [entry for entry in trainer.state.log_history if "loss" in entry]

    return entries


@pytest.fixture
def weights_of():
    def weights(model):
        return {name: value.detach().clone() for name, value in model.state_dict().items()}

    return weights


@pytest.fixture
def train_on_rows():
    """Train a stage on rows of tensors. The first two are evaluated, each time with the next of the scores."""

    def train(args, model, rows, scores):
        train_stage(
            args,
            model,
            train=rows,
            validation=rows[:2],
            collator=lambda rows: {name: torch.stack([row[name] for row in rows]) for name in rows[0]},
            processor=None,
            compute_metrics=lambda prediction: {"accuracy": next(scores)},
        )

    return train
