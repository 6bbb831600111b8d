"""`DistillationTrainer` with decoder models: the losses, the accounting, cached teachers, adapters, checkpoints."""

import copy
from dataclasses import fields, replace

import pytest
import torch
from datasets import Dataset, Features, Value
from models.decoders.oracle import NAMES
from models.decoders.tiny import tiny_model
from safetensors.torch import load_file, save_file
from tiny import assert_same_weights
from tiny_models import FAMILIES
from tiny_training import Recorder
from torch.nn import functional as F
from training.decoder_training import ROWS, SCHEDULES, Collator, adapted, answers_of, kept_columns, student
from transformers import TrainerCallback, TrainingArguments
from two_processes import train_in_two

from pumer_hf import DistillationTrainer, ReductionWarmupCallback, TokenReductionCallback
from pumer_hf.data.chat import TEACHER_LOG_PROBS, TEACHER_TOKENS, teacher_answers
from pumer_hf.reducers.pumer_inputs import PuMerInputsReducer
from pumer_hf.training.teacher_logits import add_teacher_logits

CHECKPOINTING = next(
    name
    for name in ("activation_checkpointing", "gradient_checkpointing")
    if name in {field.name for field in fields(TrainingArguments)}
)


@pytest.fixture
def run(make_args):
    """Train a decoder and return the trainer, which has `gradients`, a dict by name for each step."""

    def run(
        model,
        rows,
        *,
        teacher=None,
        name="llava",
        pad_left=False,
        collator=None,
        resume=None,
        callbacks=(),
        **arguments,
    ):
        recorder, given = Recorder(), {"remove_unused_columns": False, "max_steps": 1, **arguments}
        trainer = DistillationTrainer(
            model,
            teacher=teacher,
            args=make_args(**given),
            train_dataset=rows,
            eval_dataset=ROWS[:2],
            data_collator=collator or Collator(name, pad_left),
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
    outputs = model.train()(**batch)  # with labels, as a reducer does not read the words of the answers
    keep = kept_columns(batch, outputs.reduction) if "reduction" in outputs else batch["attention_mask"].bool()
    found, wanted = answers_of(outputs.logits, labels, keep)
    with torch.no_grad():
        whole = teacher.eval()(**given).logits
    target, _ = answers_of(whole, labels, batch["attention_mask"].bool())
    target = (target / temperature).log_softmax(-1)
    difference = target - (found / temperature).log_softmax(-1)
    return F.cross_entropy(found, wanted), temperature**2 * (target.exp() * difference).sum(-1).mean()


# Losses


@pytest.mark.parametrize(
    ("name", "site"),
    [*((name, "inputs") for name in NAMES), *((name, "both") for name in ("llava", "qwen2_5_vl", "gemma3"))],
)
def test_a_step_has_the_task_loss_and_the_divergence_at_the_answers(name, site, run, training_logs):
    model, teacher, rows = student(name, SCHEDULES[site]), tiny_model(name), ROWS[:3]
    task, divergence = losses_by_hand(copy.deepcopy(model), teacher, Collator(name)(rows))
    trainer = run(model, rows, teacher=teacher, name=name, alpha=0.5, per_device_train_batch_size=3)
    (entry,) = training_logs(trainer)
    assert entry["task_loss"] == pytest.approx(task.item(), rel=1e-4)
    assert entry["distillation_loss"] == pytest.approx(divergence.item(), rel=1e-3)
    assert entry["distillation_loss"] > 1e-3
    assert entry["loss"] == pytest.approx((task + 0.5 * divergence).item(), rel=1e-4)


@pytest.mark.parametrize("reduction", [*SCHEDULES.values(), None], ids=[*SCHEDULES, "whole"])
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


@pytest.mark.parametrize("site", ["inputs", "both"])
@pytest.mark.parametrize("examples", [6, 7, 5], ids=["even", "last step of one example", "short last batch"])
def test_accumulated_small_batches_train_and_log_like_one_large_batch(examples, site, run, training_logs, weights_of):
    def train(batch_size, accumulation):
        model = student(reduction=SCHEDULES[site])
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


# Auxiliary losses


class LossReducer(PuMerInputsReducer):
    """Reports an auxiliary loss: the mean size of the image tokens that come in."""

    def forward(self, layer, pair, evidence):
        new, trace = super().forward(layer, pair, evidence)
        return new, replace(trace, losses={"size_loss": 0.1 * pair.image.states.square().mean()})


def test_auxiliary_losses_are_means_over_examples_however_they_are_batched(run, training_logs):
    """The answers of these examples differ in length, and their images do not."""
    rows = [row for row in ROWS if len([item for item in row["prompt"] if isinstance(item, tuple)]) == 1][:4]
    entries = []
    for batch_size in (1, 2, 4):
        model = student()
        model.reducer = LossReducer(model.reduction.at("inputs"), 32)
        arguments = {"per_device_train_batch_size": batch_size, "gradient_accumulation_steps": 4 // batch_size}
        trainer = run(model, rows, teacher=tiny_model("llava"), learning_rate=0.0, **arguments)
        entries += training_logs(trainer)
    for entry in entries:
        assert entry["size_loss"] > 1e-3
        for term in ("size_loss", "task_loss", "distillation_loss", "loss"):
            assert entry[term] == pytest.approx(entries[0][term], rel=1e-3)
        total = entry["task_loss"] + entry["distillation_loss"] + entry["size_loss"]
        assert entry["loss"] == pytest.approx(total, rel=1e-4)


# Several processes


def test_two_processes_train_like_one(run, training_logs, weights_of, tmp_path):
    """Each process has a half of the examples, with other numbers of answer tokens."""

    def kinds():
        whole = student(reduction=SCHEDULES["both"]), tiny_model("llava")
        return {"whole": whole, "adapters": (adapted(), "base")}

    torch.multiprocessing.spawn(train_in_two, (str(tmp_path), kinds()), nprocs=2)
    found = torch.load(tmp_path / "found.pt", weights_only=False)
    for kind, (model, teacher) in kinds().items():
        rows, length = [*ROWS, ROWS[1]], {"max_steps": -1, "num_train_epochs": 2}
        trainer = run(model, rows, teacher=teacher, per_device_train_batch_size=4, **length)
        names = ("loss", "task_loss", "distillation_loss")
        for ours, theirs in zip(training_logs(trainer), found[kind]["logs"], strict=True):
            assert [ours[name] for name in names] == pytest.approx([theirs[name] for name in names], rel=1e-3)
        for name, value in weights_of(model).items():
            torch.testing.assert_close(
                found[kind]["weights"][name], value, rtol=1e-3, atol=1e-4, msg=lambda m, n=name: n + m
            )


# Teachers that said it in advance


def dataset_of(rows):
    return Dataset.from_dict({"number": list(range(len(rows)))}, features=Features({"number": Value("int64")}))


class NumberedCollator(Collator):
    """A collator of rows that are named by their numbers, as a dataset cannot hold those of these tests."""

    def __call__(self, rows):
        batch = super().__call__([ROWS[row["number"]] for row in rows])
        return batch | (teacher_answers(rows) if TEACHER_TOKENS in rows[0] else {})


@pytest.mark.parametrize("top_k", [100, 5])
def test_what_the_teacher_said_in_advance_trains_like_the_live_teacher(
    top_k, run, training_logs, weights_of, tmp_path
):
    """With all 100 tokens of the vocabulary it is the same; with the most probable ones it is nearly so."""
    teacher, live, cached = tiny_model("llava"), student(), student()
    rows = add_teacher_logits(
        dataset_of(ROWS[:5]), teacher, NumberedCollator("llava"), cache_dir=tmp_path, batch_size=2, top_k=top_k
    )
    arguments = {"max_steps": 3, "learning_rate": 0.01}
    live_trainer = run(live, ROWS[:5], teacher=teacher, **arguments)
    cached_trainer = run(cached, rows, collator=NumberedCollator("llava"), **arguments)
    for ours, theirs in zip(training_logs(cached_trainer), training_logs(live_trainer), strict=True):
        assert ours["distillation_loss"] <= theirs["distillation_loss"] * (1 + 1e-3)
        if top_k == 100:
            assert ours["distillation_loss"] == pytest.approx(theirs["distillation_loss"], rel=1e-3)
    if top_k == 100:
        for name, value in weights_of(live).items():
            torch.testing.assert_close(weights_of(cached)[name], value, rtol=1e-3, atol=1e-5)


def test_the_columns_have_the_most_probable_tokens_and_the_rest_as_one(tmp_path):
    teacher, collator = tiny_model("llava"), NumberedCollator("llava")
    found = add_teacher_logits(dataset_of(ROWS), teacher, collator, cache_dir=tmp_path, batch_size=3, top_k=4)
    assert found.column_names == ["number", TEACHER_TOKENS, TEACHER_LOG_PROBS]
    for number, row in enumerate(found):
        batch = collator([{"number": number}])
        labels = batch.pop("labels")
        with torch.no_grad():
            logits, _ = answers_of(teacher(**batch).logits, labels, batch["attention_mask"].bool())
        probabilities = logits.softmax(-1)
        top = probabilities.topk(4)
        assert row[TEACHER_TOKENS] == top.indices.tolist()
        expected = torch.cat([top.values, 1 - top.values.sum(-1, keepdim=True)], dim=-1)
        torch.testing.assert_close(torch.tensor(row[TEACHER_LOG_PROBS]).exp(), expected, rtol=1e-3, atol=1e-5)


def test_other_teachers_and_numbers_of_tokens_have_other_columns(tmp_path):
    collator = NumberedCollator("llava")
    names = set()
    for teacher, top_k in (
        (tiny_model("llava"), 4),
        (tiny_model("llava"), 4),
        (tiny_model("llava", seed=3), 4),
        (tiny_model("llava"), 5),
    ):
        found = add_teacher_logits(dataset_of(ROWS[:2]), teacher, collator, cache_dir=tmp_path, top_k=top_k)
        names.add(found._fingerprint)
    assert len(list(tmp_path.glob("*.arrow"))) == 3
    assert len(names) == 3


def test_a_teacher_that_reduces_says_nothing_in_advance(tmp_path):
    with pytest.raises(ValueError, match=r"it reduces tokens itself: .*set_reduction\(None\)"):
        add_teacher_logits(dataset_of(ROWS[:2]), student(), NumberedCollator("llava"), cache_dir=tmp_path)


def test_columns_of_other_answers_are_an_error(run, tmp_path):
    teacher = tiny_model("llava")
    rows = add_teacher_logits(dataset_of(ROWS[:2]), teacher, NumberedCollator("llava"), cache_dir=tmp_path)
    changed = [{**row, "number": 1 - row["number"]} for row in rows]
    with pytest.raises(ValueError, match=r"teacher_token_ids: for \[.*\] answer tokens"):
        run(student(), changed, collator=NumberedCollator("llava"), per_device_train_batch_size=1)


def test_another_temperature_than_that_of_the_columns_is_an_error(run, tmp_path):
    rows = add_teacher_logits(dataset_of(ROWS[:2]), tiny_model("llava"), NumberedCollator("llava"), cache_dir=tmp_path)
    with pytest.raises(ValueError, match="temperature=2.0"):
        run(student(), rows, collator=NumberedCollator("llava"), temperature=2.0)


# Checkpoints


class StopAt(TrainerCallback):
    """Ends the training at a step."""

    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop = state.global_step == self.step
        return control


@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl", "gemma3", "smolvlm"])
def test_a_resumed_training_ends_with_the_weights_of_an_uninterrupted_one(name, run, weights_of, tmp_path):
    def train(model, folder, **kwargs):
        output = {"output_dir": str(tmp_path / folder), "save_strategy": "steps", "save_steps": 1}
        teacher = tiny_model(name)
        return run(
            model,
            ROWS[:4],
            teacher=teacher,
            name=name,
            max_steps=3,
            optim="adamw_torch",
            learning_rate=1e-3,
            **output,
            **kwargs,
        )

    whole, resumed = student(name), student(name, seed=5)
    train(whole, "whole")
    train(student(name), "parts", callbacks=[StopAt(2)])
    trainer = train(resumed, "parts", resume=str(tmp_path / "parts" / "checkpoint-2"))
    assert trainer.state.global_step == 3
    assert_same_weights(weights_of(resumed), weights_of(whole))


@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl"])
def test_the_best_model_is_read_back(name, run, weights_of):
    kept = {}

    class Keep(TrainerCallback):
        def on_step_end(self, args, state, control, model=None, **kwargs):
            kept[state.global_step] = weights_of(model)

    model = student(name)
    trainer = run(
        model,
        ROWS[:4],
        name=name,
        max_steps=3,
        callbacks=[Keep()],
        learning_rate=1.0,
        save_strategy="steps",
        save_steps=1,
        eval_strategy="steps",
        eval_steps=1,
        load_best_model_at_end=True,
        metric_for_best_model="eval_loss",
        greater_is_better=True,
    )
    best = int(trainer.state.best_model_checkpoint.rpartition("-")[2])
    assert_same_weights(weights_of(model), kept[best])
    assert any(
        not torch.equal(value, kept[best][key]) for step in {1, 2, 3} - {best} for key, value in kept[step].items()
    )


def test_the_checkpoint_of_another_model_is_refused(run, tmp_path):
    trainer = run(student(), ROWS[:2])
    with pytest.raises(ValueError, match="there is no such checkpoint"):
        trainer._load_from_checkpoint(str(tmp_path / "missing"))
    other = tmp_path / "other"
    student().save_pretrained(other)
    weights = load_file(other / "model.safetensors")
    save_file({name: value for name, value in weights.items() if "layers.1" not in name}, other / "model.safetensors")
    with pytest.raises(ValueError, match="weights of PuMerLlavaForConditionalGeneration are missing"):
        trainer._load_from_checkpoint(str(other))


# Adapters


@pytest.mark.parametrize(
    "arguments", [{}, {"bf16": True}, {CHECKPOINTING: True}], ids=["plain", "bf16", "checkpointing"]
)
@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl"])
def test_the_base_of_adapters_teaches_like_a_second_copy(name, arguments, run, training_logs):
    trainers = []
    for teacher in ("base", tiny_model(name, seed=0)):
        model = adapted(name)
        trainers.append(run(model, ROWS[:4], teacher=teacher, name=name, max_steps=2, alpha=0.5, **arguments))
        assert model.training
    one, other = trainers
    for ours, theirs in zip(training_logs(one), training_logs(other), strict=True):
        assert ours["distillation_loss"] > 1e-3
        for term in ("loss", "task_loss", "distillation_loss"):
            assert ours[term] == pytest.approx(theirs[term], rel=1e-5)
    for ours, theirs in zip(one.gradients, other.gradients, strict=True):
        assert ours.keys() == theirs.keys()
        assert all("lora_" in key for key in ours)
        for key, value in ours.items():
            torch.testing.assert_close(value, theirs[key], rtol=1e-5, atol=1e-7)


def test_the_base_teaches_without_a_copy_of_the_weights(run):
    model = adapted()
    trainer = run(model, ROWS[:2], teacher="base")
    assert not isinstance(trainer.teacher, torch.nn.Module)
    assert all(value.requires_grad == ("lora_" in key) for key, value in model.named_parameters())
    assert model.get_base_model().reduction is not None


def test_adapters_go_on_from_their_checkpoint(run, weights_of, tmp_path):
    def train(model, folder, **kwargs):
        output = {"output_dir": str(tmp_path / folder), "save_strategy": "steps", "save_steps": 1}
        return run(model, ROWS[:4], teacher="base", max_steps=3, optim="adamw_torch", **output, **kwargs)

    whole, resumed = adapted(), adapted()
    train(whole, "whole")
    train(adapted(), "parts", callbacks=[StopAt(2)])
    train(resumed, "parts", resume=str(tmp_path / "parts" / "checkpoint-2"))
    assert_same_weights(weights_of(resumed), weights_of(whole))


def test_a_model_without_adapters_has_no_base(make_args):
    with pytest.raises(ValueError, match="teacher='base': PuMerLlavaForConditionalGeneration has no adapters"):
        DistillationTrainer(student(), teacher="base", args=make_args())
    with pytest.raises(ValueError, match="teacher='other'"):
        DistillationTrainer(student(), teacher="other", args=make_args())


# Callbacks, cards


def test_tokens_of_an_example_are_logged_on_the_ramp(run):
    model, entries = student(), []

    class Watch(TrainerCallback):
        def on_log(self, args, state, control, logs=None, **kwargs):
            entries.append(logs)

    trainer = run(model, ROWS[:4], max_steps=3)
    for callback in (ReductionWarmupCallback(2, num_stages=2), TokenReductionCallback(trainer), Watch()):
        trainer.add_callback(callback)
    trainer.train()
    logged = [entry for entry in entries if "gflops_per_example" in entry]
    kept = [entry.get("image_tokens/inputs") for entry in logged]
    assert kept == [36, 23, 11]
    assert logged[0]["gflops_per_example"] > logged[-1]["gflops_per_example"]


def test_the_card_names_the_family(run):
    trainer = run(student(), ROWS[:2])
    assert (trainer.card.backbone, trainer.card.task, trainer.card.role) == ("llava", None, "student")
    trainer.create_model_card()
    assert trainer.card.report.cost.gflops["student"] > 0


# Other losses


@pytest.mark.parametrize("batch_size", [3, 2])
def test_label_smoothing_is_that_of_the_paper(batch_size, run, training_logs):
    model, rows = student(), ROWS[:3]
    batch = Collator("llava")(rows)
    outputs = copy.deepcopy(model).train()(**batch)
    found, wanted = answers_of(outputs.logits, batch["labels"], kept_columns(batch, outputs.reduction))
    expected = F.cross_entropy(found, wanted, label_smoothing=0.2).item()
    trainer = run(
        model,
        rows,
        label_smoothing_factor=0.2,
        per_device_train_batch_size=batch_size,
        gradient_accumulation_steps=4 - batch_size,
    )
    assert training_logs(trainer)[0]["loss"] == pytest.approx(expected, rel=1e-4)


def test_a_loss_function_gets_labels_in_the_order_of_the_logits(make_args):
    seen = []

    def loss(outputs, labels, num_items_in_batch):
        seen.append((outputs.logits.shape[:2], labels.shape, float(num_items_in_batch)))
        targets = labels[:, 1:][labels[:, 1:] != -100]
        logits = outputs.logits[:, :-1][labels[:, 1:] != -100]
        return F.cross_entropy(logits, targets, reduction="sum") / num_items_in_batch

    losses = []
    for given in (loss, None):
        trainer = DistillationTrainer(
            student(),
            args=make_args(max_steps=1, gradient_accumulation_steps=2, remove_unused_columns=False),
            train_dataset=ROWS[:3],
            data_collator=Collator("llava"),
            compute_loss_func=given,
        )
        trainer.train()
        losses.append(trainer.state.log_history[0]["loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert all(logits == labels and number == 8 for logits, labels, number in seen)


def test_the_loss_of_an_evaluation_is_that_of_the_answers(run):
    trainer = run(student(), ROWS[:2], learning_rate=0.0)
    batch = Collator("llava")(ROWS[:2])
    with torch.no_grad():
        expected = trainer.model.eval()(**batch).loss.item()
    assert trainer.evaluate()["eval_loss"] == pytest.approx(expected, rel=1e-5)


# Errors


def test_the_class_of_transformers_is_named_with_the_one_to_load(make_args):
    with pytest.raises(ValueError, match="LlavaForConditionalGeneration.*load it as PuMerLlava"):
        DistillationTrainer(tiny_model("llava"), args=make_args())


def with_vocabulary(size):
    model = tiny_model("llava")
    model.config.text_config.vocab_size = size
    return model


@pytest.mark.parametrize(
    ("teacher", "message"),
    [
        (lambda: student(), "it reduces tokens itself.*set_reduction"),
        (lambda: with_vocabulary(101), "same vocabulary.*101 tokens.*100"),
        (lambda: FAMILIES["vilt"].model(), "a PuMerVilt.* cannot teach a PuMerLlava"),
    ],
    ids=["reduced", "other vocabulary", "encoder"],
)
def test_a_teacher_that_does_not_fit_is_refused(teacher, message, make_args):
    with pytest.raises(ValueError, match=message):
        DistillationTrainer(student(), teacher=teacher(), args=make_args())


@pytest.mark.parametrize("name", ["cross_modal_learning_rate", "classifier_learning_rate"])
def test_the_rate_of_a_part_that_a_decoder_lacks_is_refused(name, make_args):
    with pytest.raises(ValueError, match=f"{name}=0.1: .*learning_rate"):
        DistillationTrainer(student(), args=make_args(**{name: 0.1}))


def test_predictions_of_tokens_are_no_answers(make_args):
    with pytest.raises(ValueError, match="compute_metrics: .*generated"):
        DistillationTrainer(student(), args=make_args(), compute_metrics=lambda prediction: {})


@pytest.mark.parametrize(("labels", "message"), [(None, "no labels"), (-100, "no answer token")])
def test_a_batch_without_answers_is_an_error_that_says_so(labels, message, make_args):
    class Without(Collator):
        def __call__(self, rows):
            batch = super().__call__(rows)
            found = batch.pop("labels")
            return batch if labels is None else {**batch, "labels": torch.full_like(found, labels)}

    trainer = DistillationTrainer(
        student(), args=make_args(remove_unused_columns=False), train_dataset=ROWS[:2], data_collator=Without("llava")
    )
    with pytest.raises(ValueError, match=message):
        trainer.train()
