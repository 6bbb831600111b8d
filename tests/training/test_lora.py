"""Low-rank adapters of peft on reduced models: train, save, load, merge."""

import pytest
import torch
from tiny_models import FAMILIES, NUM_LABELS, schedule

from pumer_hf import TokenReductionCallback
from pumer_hf.hub.files import published_files
from pumer_hf.training.parameters import parameter_groups

peft = pytest.importorskip("peft", reason="adapters need peft: pip install -e '.[lora]'")
REDUCTION = schedule("pumer", "small")


def adapted(family):
    config = peft.LoraConfig(r=2, target_modules=["query", "value"], modules_to_save=["classifier"])
    return peft.get_peft_model(family.model(REDUCTION), config)


def rows_of(family):
    labels = torch.rand(3, NUM_LABELS, generator=torch.Generator().manual_seed(5))
    batch = {**family.inputs(), "labels": labels}
    return [{name: value[index] for name, value in batch.items()} for index in range(3)]


def logits(model, family):
    with torch.inference_mode():
        return model.eval()(**family.inputs()).logits


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_only_adapters_and_head_learn_and_they_are_saved_loaded_and_merged(
    family, run_training, training_logs, weights_of, tmp_path
):
    model = adapted(family)
    before = weights_of(model)
    # Adam, for which a small gradient is enough
    trainer = run_training(model, rows_of(family), teacher=family.model(seed=1), optim="adamw_torch")
    changed = {name for name, value in weights_of(model).items() if not torch.equal(value, before[name])}
    assert changed == {name for name in before if "lora_" in name or "classifier.modules_to_save" in name}
    assert all(entry["distillation_loss"] > 0 for entry in training_logs(trainer))

    trainer.save_model(tmp_path / "adapter")
    expected = logits(model, family)
    loaded = peft.PeftModel.from_pretrained(family.model(REDUCTION), tmp_path / "adapter")
    assert torch.equal(logits(loaded, family), expected)

    merged = loaded.merge_and_unload()
    assert type(merged) is family.model_class
    torch.testing.assert_close(logits(merged, family), expected)
    merged.save_pretrained(tmp_path / "merged")
    again = family.model_class.from_pretrained(tmp_path / "merged")
    assert again.config.reduction == REDUCTION
    assert torch.equal(logits(again, family), logits(merged, family))


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_the_base_of_the_adapters_can_be_the_teacher(family, run_training, training_logs):
    arguments = {"max_steps": 2, "optim": "adamw_torch", "learning_rate": 1e-2}
    logs = []
    for teacher in ("base", family.model(None)):
        torch.manual_seed(0)
        logs.append(training_logs(run_training(adapted(family), rows_of(family), teacher=teacher, **arguments)))
    for ours, theirs in zip(*logs, strict=True):
        assert ours["distillation_loss"] > 0
        for name in ("loss", "task_loss", "distillation_loss"):
            assert ours[name] == pytest.approx(theirs[name], rel=1e-5)


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_the_schedule_is_seen_and_changed_through_the_adapter(family):
    model = adapted(family).eval()
    (trace,) = model(**family.inputs()).reduction
    assert (trace.layer, trace.num_image) == (1, model.output_lengths(9, family.num_image)[1][1])
    assert trace.num_image < family.num_image
    assert model.reduction.at("layers").layers == (1,)
    model.set_reduction({**REDUCTION, "layers": [0, 2]})
    assert [trace.layer for trace in model(**family.inputs()).reduction] == [0, 2]
    model.set_reduction(None)
    assert model(**family.inputs()).reduction == ()
    assert model.get_base_model().config.reduction is None


def test_each_part_has_its_learning_rate(make_args):
    args = make_args(learning_rate=0.1, cross_modal_learning_rate=0.2, classifier_learning_rate=0.3)
    model = adapted(FAMILIES["meter"])
    groups = parameter_groups(model, args)
    assert {group["lr"] for group in groups} == {0.1, 0.2, 0.3}
    grouped = {id(parameter) for group in groups for parameter in group["params"]}
    assert grouped == {id(parameter) for parameter in model.parameters() if parameter.requires_grad}


def test_callback_card_and_push_see_the_model_in_the_adapter(run_training, tmp_path):
    family = FAMILIES["vilt"]
    trainer = run_training(adapted(family), rows_of(family), max_steps=1)
    trainer.add_callback(TokenReductionCallback(trainer))
    trainer.train()
    logged = [entry for entry in trainer.state.log_history if "gflops_per_example" in entry]
    assert [entry["image_tokens/layer_1"] for entry in logged] == [trainer.model.output_lengths(9, 17)[1][1]]
    trainer.create_model_card()
    assert (trainer.card.task, trainer.card.backbone, trainer.card.role) == ("vqa", "vilt", "student")
    trainer.save_model()
    with pytest.raises(ValueError, match=r"adapter.*`merge_and_unload\(\)`"):
        published_files(trainer.args.output_dir, "user/name")
