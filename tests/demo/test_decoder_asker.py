"""What the page for decoders does, without the page."""

import time
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest
import torch
from tiny import noise
from tiny_llava import save_tiny_llava

from pumer_hf.answering import load_with_processor
from pumer_hf.demo import decoder_asker as module
from pumer_hf.demo.decoder_asker import AS_SAVED, DecoderAsker, Question
from pumer_hf.demo.decoder_page import decoder_introduction
from pumer_hf.images import DataError
from pumer_hf.models.families import DECODERS

SCHEDULE = {"method": "pumer", "site": "inputs", "keep_ratio": 0.25}
TEXT = "what digit is red?"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    torch.manual_seed(0)
    return str(save_tiny_llava(tmp_path_factory.mktemp("model")))


@pytest.fixture
def asker(checkpoint):
    return DecoderAsker.load(checkpoint, reduction=SCHEDULE)


def question(asker, method="pumer", ratio=0.25, **changes):
    given = {"image": noise(), "text": TEXT, "schedule": asker.schedule(method, ratio), "max_new_tokens": 4}
    return Question(**{**given, **changes})


def last(replies):
    *_, reply = replies
    return reply


def test_both_models_answer_word_by_word(asker, checkpoint):
    replies = list(asker.ask(question(asker)))
    reply = replies[-1]
    assert reply.method == "pumer"
    assert (reply.reduced.answer.kept, reply.full.answer.kept) == ("9 of 36 image tokens", "all 36 image tokens")
    assert len(reply.panels) == 2
    assert reply.picture.width > reply.picture.height
    for said in (reply.reduced, reply.full):
        assert said.text == said.answer.text
    texts = [one.reduced.text for one in replies]
    assert all(reply.reduced.text.startswith(text) for text in texts)
    model, processor = load_with_processor(checkpoint, None)
    inputs = module.prompt_inputs(model, processor, noise(), TEXT)
    assert reply.full.text == module.ask(model, processor, inputs, 4).text


def test_words_come_before_the_answer_is_complete(asker, monkeypatch):
    """Each word waits until the one before has been taken, so no reply is left out."""
    taken, ask = Event(), module.ask
    taken.set()

    def in_step(model, processor, inputs, new_tokens, show=None, stops=lambda: False):
        def shown(words, end):
            taken.wait(10)
            taken.clear()
            show(words, end)

        return ask(model, processor, inputs, new_tokens, shown, stops)

    monkeypatch.setattr(module, "warm_up", lambda *_: None)
    monkeypatch.setattr(module, "ask", in_step)
    seen = []
    for reply in asker.ask(question(asker)):
        seen.append(reply)
        taken.set()
    growing = [reply for reply in seen if reply.reduced.answer is None]
    assert len({reply.reduced.text for reply in growing}) > 1
    assert not any(reply.panels for reply in growing)
    assert any(reply.full is not None and reply.full.answer is None and reply.panels for reply in seen)


def test_without_comparison_the_unreduced_model_is_not_asked(asker):
    assert last(asker.ask(question(asker, compare=False))).full is None


def test_nobody_waits_for_an_answer_that_is_not_wanted(asker, monkeypatch):
    started, begin = [], module.ask

    def slow(model, processor, inputs, new_tokens, show=None, stops=lambda: False):
        def shown(words, end):
            started.append(words)
            time.sleep(0.2)
            show(words, end)

        return begin(model, processor, inputs, new_tokens, shown, stops)

    monkeypatch.setattr(module, "warm_up", lambda *_: None)
    monkeypatch.setattr(module, "ask", slow)
    replies = asker.ask(question(asker, max_new_tokens=30))
    next(replies)
    replies.close()
    monkeypatch.setattr(module, "ask", begin)
    assert last(asker.ask(question(asker))).full.answer is not None  # it waits for the lock
    assert len(started) < 10
    assert asker.model.watch is None


def test_two_visitors_do_not_disturb_one_another(asker):
    questions = [question(asker, "diverse", ratio) for ratio in (0.25, 0.5)]
    alone = [last(asker.ask(one)).reduced for one in questions]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda index: last(asker.ask(questions[index % 2])).reduced, range(6)))
    assert [said.text for said in found] == [said.text for said in alone] * 3
    assert [said.answer.image_tokens for said in found] == [9, 18] * 3


def test_the_methods_to_choose_from(asker, checkpoint):
    assert asker.methods[0] == "pumer"
    assert set(asker.methods) == {"pumer", "tome", "random", "grid", "diverse", "relevant_diverse"}
    assert asker.keep_ratio == 0.25
    for method in asker.methods:
        reply = last(asker.ask(question(asker, method, 0.5, compare=False)))
        assert (reply.method, reply.reduced.answer.image_tokens) == (method, 18)
    own = {**SCHEDULE, "p": 0.5, "positions": "contiguous"}
    asker = DecoderAsker.load(checkpoint, reduction=own)
    assert asker.schedule("pumer", 0.5).to_dict() == {**asker.saved.to_dict(), "keep_ratio": 0.5}
    assert asker.schedule("tome", 0.5).parts[0].positions == "contiguous"
    with pytest.raises(ValueError, match="method='magic': choose one of pumer"):
        asker.schedule("magic", 0.5)
    for ratio in (0, 1.5, None, "a"):
        with pytest.raises(ValueError, match=rf"^keep_ratio={ratio}: must be a number in \(0, 1\]"):
            asker.schedule("pumer", ratio)


def test_an_amount_that_is_no_part_stays_as_saved(checkpoint):
    asker = DecoderAsker.load(checkpoint, reduction={"method": "diverse", "site": "inputs", "num_keep": 7})
    assert asker.methods[0] == AS_SAVED
    assert "diverse" in asker.methods
    assert last(asker.ask(question(asker, AS_SAVED, 0.5))).reduced.answer.image_tokens == 7
    assert last(asker.ask(question(asker, "diverse", 0.5))).reduced.answer.image_tokens == 18


@pytest.mark.parametrize(
    ("reduction", "name", "left"),
    (
        ({"method": "fastv", "layers": [2], "prune_ratio": 0.5}, "fastv", 18),
        ([{"method": "tome", "site": "inputs", "keep_ratio": 0.5}, {"method": "pyramid", "layers": [1, 2]}], None, 5),
    ),
)
def test_a_schedule_inside_the_decoder_stays_as_saved(tmp_path, reduction, name, left):
    asker = DecoderAsker.load(str(save_tiny_llava(tmp_path, num_layers=4)), reduction=reduction)
    assert asker.methods[0] == AS_SAVED
    assert "pumer" in asker.methods
    reply = last(asker.ask(question(asker, AS_SAVED, 0.5)))
    assert reply.method == (name or "tome, pyramid")
    assert reply.reduced.answer.kept.endswith(f"{left} of 36 image tokens")
    assert len(reply.panels) > 1
    assert last(asker.ask(question(asker, "pumer", 0.5))).reduced.answer.image_tokens == 18
    sentence = decoder_introduction(asker)
    assert "inside the decoder" in sentence
    assert ("before the decoder" in sentence) == (name is None)


def test_a_schedule_that_needs_a_map_is_named(tmp_path):
    folder = str(save_tiny_llava(tmp_path, num_layers=4))
    with pytest.raises(ValueError, match="method='grounded' needs a map"):
        DecoderAsker.load(folder, reduction={"method": "grounded", "layers": [1], "prune_ratio": 0.5})


def test_what_is_wrong_is_raised_where_the_answer_is_awaited(asker, tmp_path):
    (tmp_path / "a.png").write_text("I am no picture")
    with pytest.raises(DataError, match="a.png"):
        list(asker.ask(question(asker, image=str(tmp_path / "a.png"))))
    with pytest.raises(ValueError, match="one image needs one placeholder"):
        list(asker.ask(question(asker, text="<image> and <image>?")))
    with pytest.raises(ValueError, match="max_new_tokens=0"):
        list(asker.ask(question(asker, max_new_tokens=0)))
    assert last(asker.ask(question(asker))).full.answer is not None


def test_a_family_that_cannot_be_drawn_answers_all_the_same(asker, monkeypatch):
    monkeypatch.setattr(type(asker.model), "family", DECODERS["llava_next"])
    reply = last(asker.ask(question(asker)))
    assert reply.panels == ()
    assert reply.not_drawn.startswith("LLaVA-NeXT: ")
    assert reply.full.answer is not None


def test_models_that_it_does_not_take(checkpoint):
    with pytest.raises(ValueError, match="reduces no tokens: give a schedule"):
        DecoderAsker.load(checkpoint)
    with pytest.raises(ValueError, match="--teacher x: "):
        DecoderAsker.load(checkpoint, "x", reduction=SCHEDULE)
    grounded = {"method": "grounded", "site": "inputs", "num_keep": 4}
    with pytest.raises(ValueError, match="reduction.method='grounded' needs a map"):
        DecoderAsker.load(checkpoint, reduction=grounded)
