"""PuMer with one of its parts replaced: only that part differs."""

import pytest
import torch
from tiny_models import FAMILIES
from transformers import BertTokenizerFast

from laboratory.saliencies import PUMER_PARTS, PuMerPartsReducer, content_ids, watch_words
from pumer_hf.reducers import METHODS

SCHEDULE = {"layers": [0, 1], "prune_ratio": 0.3, "image_merge_ratio": 0.2, "text_merge_ratio": 0.2}
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "what", "colour", "is", "the", "seven", "?"]


def run(model, inputs, **fields):
    model.set_reduction({"method": PUMER_PARTS, **SCHEDULE, **fields})
    with torch.no_grad():
        return model(**inputs)


@pytest.fixture
def vilt(monkeypatch):
    monkeypatch.setitem(METHODS, PUMER_PARTS, PuMerPartsReducer)
    return FAMILIES["vilt"].model().eval(), FAMILIES["vilt"].inputs()


@pytest.fixture
def tokenizer(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS))
    return BertTokenizerFast(str(tmp_path / "vocab.txt"))


def test_as_in_pumer_it_is_pumer(vilt):
    model, inputs = vilt
    model.set_reduction({"method": "pumer", **SCHEDULE})
    with torch.no_grad():
        expected = model(**inputs).logits
    assert torch.equal(run(model, inputs).logits, expected)


def test_another_saliency_keeps_as_many_tokens_and_others(vilt):
    model, inputs = vilt
    usual = run(model, inputs).reduction[0]
    for word in ("random", "image"):
        other = run(model, inputs, saliency=word).reduction[0]
        assert other.keep.shape == usual.keep.shape
        assert not torch.equal(other.keep, usual.keep)


def test_what_is_dropped_is_in_no_token(vilt):
    model, inputs = vilt
    merged, dropped = (run(model, inputs, drops=drops).reduction[0] for drops in (False, True))
    assert merged.image_source.shape == dropped.image_source.shape
    assert (merged.num_text, merged.num_image) == (dropped.num_text, dropped.num_image)
    for name in ("text_source", "image_source"):
        held = [(getattr(one, name) >= 0).sum().item() for one in (merged, dropped)]
        assert held[1] < held[0]


def test_content_words(tokenizer):
    found = content_ids(tokenizer)
    assert {word for word, number in tokenizer.get_vocab().items() if found[number]} == {"colour", "seven"}


def test_only_content_words_ask(vilt, tokenizer):
    model, inputs = vilt
    ids = tokenizer("what colour is the seven ?", return_tensors="pt").input_ids
    watch_words(model, tokenizer)
    batch = {**inputs, "input_ids": ids.expand(len(inputs["pixel_values"]), -1), "attention_mask": None}
    run(model, {name: value for name, value in batch.items() if value is not None}, saliency="content_words")
    (reducer,) = model.token_reduction.part_reducers
    assert reducer.content[0].tolist() == [False, False, True, False, False, True, False, False]
