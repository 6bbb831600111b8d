"""What the page does, without the page."""

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Event

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_tasks import LABELS, REDUCTION, save_tiny, tiny

from pumer_hf.data.tasks import TASKS
from pumer_hf.data.vqa import VQA
from pumer_hf.demo import asker as module
from pumer_hf.demo.asker import NOTHING, SAME_WEIGHTS, TEACHER, Asker
from pumer_hf.demo.schedules import moved
from pumer_hf.explain.prediction import encode

QUESTION = "what digit is red?"
HARD = {**REDUCTION, "prune_ratio": 0.5, "image_merge_ratio": 0.5}
SOFT = {**REDUCTION, "prune_ratio": 0.0, "image_merge_ratio": 0.1, "text_merge_ratio": 0.0}


@pytest.fixture(scope="module")
def image():
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8))


def direct(model, processor, image, reduction):
    model.set_reduction(reduction)
    with torch.no_grad():
        return model(**encode(model, processor, image, QUESTION))


def test_the_task_says_what_the_text_is(monkeypatch):
    model, processor = tiny("vilt")
    assert Asker(model, processor).text_label == "Question"
    monkeypatch.setitem(TASKS, "claims", replace(VQA, name="claims", text_label="Claim"))
    model.config.task = "claims"
    assert Asker(model, processor).text_label == "Claim"
    assert Asker(*tiny("vilt", "snli_ve")).text_label == "Hypothesis"


@pytest.mark.parametrize("backbone", ["vilt", "meter"])
def test_a_reply_is_what_the_models_say(backbone, image):
    (model, processor), (teacher, _) = tiny(backbone), tiny(backbone, reduction=None, seed=1)
    asker = Asker(model, processor, (teacher, processor))
    assert asker.comparisons == [NOTHING, SAME_WEIGHTS, TEACHER]
    replies = {name: asker.ask(image, QUESTION, REDUCTION, name) for name in asker.comparisons}
    expected = direct(model, processor, image, REDUCTION)
    for reply in replies.values():
        values = expected.logits[0].sigmoid().tolist()
        assert reply.answers == pytest.approx(dict(zip(LABELS["vqa"], values, strict=True)))
        assert list(reply.answers.values()) == sorted(reply.answers.values(), reverse=True)
        assert [trace.num_image for trace in reply.traces] == [trace.num_image for trace in expected.reduction]
    assert replies[NOTHING].full_answers is replies[NOTHING].full_gflops is None
    for name, other in {SAME_WEIGHTS: model, TEACHER: teacher}.items():
        values = direct(other, processor, image, None).logits[0].sigmoid().tolist()
        assert replies[name].full_answers == pytest.approx(dict(zip(LABELS["vqa"], values, strict=True)))
        assert replies[name].gflops < replies[name].full_gflops


def test_the_probabilities_of_entailment_share_one(image):
    asker = Asker(*tiny("vilt", "snli_ve"))
    answers = asker.ask(image, "there is a red digit", REDUCTION).answers
    assert set(answers) == set(LABELS["snli_ve"])
    assert sum(answers.values()) == pytest.approx(1)


def test_the_schedule_counts(image):
    asker = Asker(*tiny("vilt"))
    hard, soft = (asker.ask(image, QUESTION, reduction) for reduction in (HARD, SOFT))
    assert hard.gflops < soft.gflops
    assert hard.traces[-1].num_image < soft.traces[-1].num_image
    assert hard.picture.tobytes() != soft.picture.tobytes()
    ratios = {"prune_ratio": 0.2, "image_merge_ratio": 0.3, "text_merge_ratio": 0.2}
    assert moved(asker.schedule.parts[0], ratios).to_dict() == REDUCTION


CHOICE = {"method": "lookahead", "site": "inputs", "keep_ratio": 0.25, "rank": 8}


@pytest.mark.parametrize("reduction", [CHOICE, [CHOICE, REDUCTION]], ids=["alone", "with layers"])
def test_a_choice_before_the_first_layer(image, reduction):
    asker = Asker(*tiny("vilt", reduction=reduction))
    reply = asker.ask(image, QUESTION, asker.schedule, SAME_WEIGHTS)
    assert reply.schedule == asker.schedule
    assert reply.gflops < reply.full_gflops
    assert reply.counts[0].place == "before the first layer"
    assert reply.counts[0].pruned == 27
    assert len(reply.panels) == 1 + len(reply.traces)


def test_a_method_that_needs_a_map_is_named():
    grounded = {"method": "grounded", "site": "inputs", "prune_ratio": 0.5}
    with pytest.raises(ValueError, match="reduction.method='grounded' needs a map"):
        Asker(*tiny("vilt", reduction=[grounded, REDUCTION]))


def test_the_unreduced_model_shares_the_weights():
    model, processor = tiny("meter")
    asker = Asker(model, processor)
    other = asker.others[SAME_WEIGHTS][0]
    assert other is not model
    assert other.reduction is None
    assert model.reduction is not None
    assert model.config.reduction is not None
    pairs = zip(model.parameters(), other.parameters(), strict=True)
    assert all(own.data_ptr() == shared.data_ptr() for own, shared in pairs)


def test_two_users_do_not_disturb_one_another(image, monkeypatch):
    asker = Asker(*tiny("vilt"))
    alone = [asker.ask(image, QUESTION, reduction).answers for reduction in (HARD, SOFT)]
    assert alone[0] != alone[1]
    slow = module.encode

    def encode_slowly(*args):
        time.sleep(0.02)  # between the change of the schedule and the forward
        return slow(*args)

    monkeypatch.setattr(module, "encode", encode_slowly)
    with ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(asker.ask, image, QUESTION, (HARD, SOFT)[number % 2]) for number in range(8)]
        assert [job.result().answers for job in jobs] == alone * 4


def test_times(image, monkeypatch):
    monkeypatch.setattr(module, "SECONDS", 0.0)
    model, processor = tiny("vilt")
    sizes = []
    model.register_forward_pre_hook(
        lambda module, args, inputs: sizes.append(len(inputs["input_ids"])), with_kwargs=True
    )
    asker = Asker(model, processor)
    times = asker.measure(image, QUESTION, REDUCTION, SAME_WEIGHTS, batch_size=3)
    assert (times.runs, times.batch_size) == (5, 3)
    assert times.seconds > 0 < times.full_seconds
    assert sizes == [3] * (2 * (5 + 2))  # the copy has the hook too
    times = asker.measure(image, QUESTION, REDUCTION, NOTHING)
    assert times.full_seconds is None
    assert sorted(asker.batch_sizes) == [1, 8, 64]


def test_a_question_goes_before_a_measurement(image, monkeypatch):
    monkeypatch.setattr(module, "SECONDS", 60.0)
    model, processor = tiny("vilt")
    started = Event()
    model.register_forward_pre_hook(lambda *_: started.set())
    asker = Asker(model, processor)
    with ThreadPoolExecutor(1) as pool:
        start = time.perf_counter()
        measuring = pool.submit(asker.measure, image, QUESTION, HARD, SAME_WEIGHTS)
        assert started.wait(10)
        reply = asker.ask(image, QUESTION, SOFT)
        assert measuring.result() is None
    assert time.perf_counter() - start < 30
    assert reply.answers == asker.ask(image, QUESTION, SOFT).answers
    monkeypatch.setattr(module, "SECONDS", 0.0)
    assert asker.measure(image, QUESTION, HARD).runs == 5  # none waits any more


def test_a_batch_is_copies_of_the_example(image, monkeypatch):
    model, processor = tiny("meter")
    batches = []
    model.forward = lambda **inputs: batches.append(inputs)
    inputs = encode(model, processor, image, QUESTION)
    module.forward_call(model, inputs, 3)()
    for name, value in batches[0].items():
        assert value.shape == (3, *inputs[name].shape[1:])
        assert (value == inputs[name]).all()


def test_from_folders(tmp_path, image):
    checkpoint = save_tiny(tmp_path / "student", "vilt")
    teacher = save_tiny(tmp_path / "teacher", "vilt", seed=1)
    asker = Asker.load(checkpoint, teacher)
    assert asker.schedule.to_dict() == REDUCTION
    assert asker.others[TEACHER][0].reduction is None  # though it was saved with one
    assert Asker.load(checkpoint, reduction=SOFT).schedule.to_dict() == SOFT
    assert asker.ask(image, QUESTION, REDUCTION, TEACHER).full_answers


def test_models_that_it_does_not_take():
    with pytest.raises(ValueError, match="PuMerViltForImageAndTextRetrieval: .*questions"):
        Asker(*tiny("vilt", "retrieval"))
    with pytest.raises(ValueError, match="reduces no tokens"):
        Asker(*tiny("vilt", reduction=None))
    with pytest.raises(ValueError, match="teacher .*labels"):
        Asker(*tiny("vilt"), tiny("vilt", "snli_ve", reduction=None))
