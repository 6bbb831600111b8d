"""Pushing from a trainer, beyond what the end-to-end test does."""

import pytest
import tiny_models
import torch
from transformers import Trainer

from pumer_hf import DistillationTrainer, DistillationTrainingArguments
from pumer_hf.hub.push import PushError
from pumer_hf.models.encoders.meter import PuMerMeterProcessor
from pumer_hf.models.encoders.meter.processing import build_roberta_tokenizer
from pumer_hf.training.timing import TimedCheckpointCallback

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
NAME = "user/tiny"


@pytest.fixture
def make_trainer(tmp_path):
    def make(processor=True, **arguments):
        inputs = tiny_models.meter_inputs()
        labels = torch.rand(len(inputs["input_ids"]), tiny_models.NUM_LABELS)
        rows = [{**{name: value[i] for name, value in inputs.items()}, "labels": labels[i]} for i in range(3)]
        tokenizer = build_roberta_tokenizer(["how many threes?"], 9)
        return DistillationTrainer(
            tiny_models.FAMILIES["meter"].model(reduction=tiny_models.schedule("pumer", "small")),
            args=DistillationTrainingArguments(
                str(tmp_path / "run"),
                use_cpu=True,
                disable_tqdm=True,
                report_to=[],
                **{"max_steps": 2, "save_steps": 1, "push_to_hub": True, "hub_model_id": NAME, **arguments},
            ),
            train_dataset=rows,
            processing_class=PuMerMeterProcessor.from_tokenizer(tokenizer, 16) if processor else None,
        )

    return make


def test_checkpoints_are_pushed_only_where_they_are_asked_for(hub, make_trainer):
    trainer = make_trainer(hub_strategy="checkpoint", hub_always_push=True)
    trainer.train()
    trainer.push_to_hub()
    files = hub.files(NAME)
    assert "last-checkpoint/optimizer.pt" in files
    assert not [name for name in files if name.endswith((".pt", ".bin")) and "/" not in name]


@pytest.mark.parametrize("strategy", ["every_save", "checkpoint", "all_checkpoints"])
def test_a_checkpoint_that_only_the_clock_asked_for_is_not_pushed(strategy, make_trainer, hub, monkeypatch):
    """The third of three rows ends an epoch, where the clock waits."""
    steps = {"max_steps": 5, "save_steps": 4, "per_device_train_batch_size": 1}
    trainer = make_trainer(hub_strategy=strategy, hub_always_push=True, **steps)
    trainer.add_callback(TimedCheckpointCallback(1e-9))  # each step is due
    done = {"_save_checkpoint": [], "_stage": []}
    for name, steps_of in done.items():
        method = getattr(trainer, name)

        def noted(*args, method=method, steps_of=steps_of):
            steps_of.append(trainer.state.global_step)
            return method(*args)

        monkeypatch.setattr(trainer, name, noted)
    trainer.train()
    assert done == {"_save_checkpoint": [1, 2, 4, 5], "_stage": [4, 5]}


def test_a_push_during_training_that_fails_is_told_and_made_good(hub, make_trainer, caplog):
    trainer = make_trainer(hub_strategy="every_save", hub_always_push=True)
    hub.fail("POST", "/preupload/", 400, times=1)
    with caplog.at_level("WARNING", logger="pumer_hf.hub.trainer"):
        trainer.train()
    assert "a push during training failed" in caplog.text
    trainer.push_to_hub(blocking=False).result()
    assert "model.safetensors" in hub.files(NAME)


def test_a_token_that_is_refused_ends_before_training(hub, make_trainer, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_expired")
    with pytest.raises(PushError, match="user/tiny: .*token"):
        make_trainer()


def test_what_a_push_needs(hub, make_trainer):
    with pytest.raises(ValueError, match="processing_class is None"):
        make_trainer(processor=False)
    assert hub.repos == {}
    with pytest.raises(ValueError, match="unknown field 'tasks'"):
        make_trainer(push_to_hub=False).push_to_hub(tasks="vqa")


@pytest.mark.parametrize("private", [True, False])
def test_a_private_repository_needs_no_argument_of_transformers(hub, make_trainer, monkeypatch, private):
    def of_transformers_before_5_23(self, token=None):
        raise AssertionError("it makes the repository that the arguments ask for, whatever `private` is")

    monkeypatch.setattr(Trainer, "init_hf_repo", of_transformers_before_5_23)
    make_trainer(push_to_hub=False).push_to_hub(private=private)
    assert hub.repos[NAME].private is private


def test_facts_for_the_card(hub, make_trainer):
    trainer = make_trainer()
    trainer.train()
    trainer.push_to_hub(license="apache-2.0", dataset={"name": "mine"}, commit_message="Done")
    card = hub.files(NAME)["README.md"].decode()
    assert "license: apache-2.0" in card
    assert "- Data: mine" in card
    assert "There are no results of this model." in card
    assert hub.repos[NAME].titles[-1] == "Done"
