"""Which words of a text a model does not read."""

import pytest
from PIL import Image
from tiny_tasks import tiny
from transformers import BertTokenizer, ViltProcessor

from pumer_hf import encode_example, unread_words
from pumer_hf.unread import Unread


@pytest.fixture(scope="module", params=["vilt", "meter"])
def known(request):
    """A model and its processor, whose vocabulary is from questions about digit scenes."""
    return tiny(request.param)


@pytest.mark.parametrize("text", ["what digit is red?", "is there a red digit?", "a  digit\n is  there"])
def test_known_words_are_read(known, text):
    assert unread_words(*known, text) == Unread()
    assert unread_words(*known, text).sentences() == []


def test_capitals_count_where_the_vocabulary_has_them():
    assert unread_words(*tiny("vilt"), "what digit is RED?") == Unread()
    assert unread_words(*tiny("meter"), "what digit is RED?") == Unread(spelled=("RED",))


@pytest.mark.parametrize("text", ["3 2D 5", "what is 3?", "what [3] 1984"])
def test_signs_and_numbers_are_no_words(text):
    assert unread_words(*tiny("meter"), text).spelled == ()


def test_letters_are_no_words(known):
    unread = unread_words(*known, "what elephant is red? what zebra?")
    assert unread == Unread(spelled=("elephant", "zebra"))
    (sentence,) = unread.sentences()
    assert "elephant" in sentence
    assert "zebra" in sentence


@pytest.mark.parametrize("word", ["слон", "ελέφας", "大象", "ゾウ", "🐘", "فيل"])
def test_other_scripts_are_not_read(known, word):
    unread = unread_words(*known, f"what digit is {word}?")
    found = "".join([*unread.unknown, *unread.spelled])
    assert set(word) <= set(found)  # one word, or one for each sign
    assert word[0] in unread.sentences()[0]
    assert unread.cut == ""


@pytest.mark.parametrize("length", [8, None])
def test_the_end_of_a_long_text_is_not_read(known, length):
    model, processor = known
    text = "what digit is red? " * 30 + "is there a two?"
    unread = unread_words(model, processor, text, length)
    assert unread.cut.endswith("is there a two?")
    assert unread.limit == (length or 40)
    picture = Image.new("RGB", (48, 48))
    read, whole = (
        encode_example(model, processor, picture, one, length)["input_ids"]
        for one in (text.removesuffix(unread.cut), text)
    )
    assert read.equal(whole)
    assert f"{length or 40} tokens" in unread.sentences()[0]
    assert unread_words(model, processor, "is there a two?", length) == Unread()


def test_a_word_that_is_read_in_part_is_cut_off(known):
    unread = unread_words(*known, "what digit is red? elephant", 10)
    assert unread == Unread(cut="elephant", limit=10)


def test_a_pretrained_vocabulary_has_a_token_for_what_it_lacks():
    model, processor = tiny("vilt")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "what", "is", "?", "this", "eleph", "##ant", "t", "##v"]
    vocabulary = {word: number for number, word in enumerate([*words, "大"])}
    processor = ViltProcessor(processor.image_processor, BertTokenizer(vocab=vocabulary))
    assert unread_words(model, processor, "what is this elephant?") == Unread()
    assert unread_words(model, processor, "what is zebra, this?") == Unread(unknown=("zebra", ","))
    assert unread_words(model, processor, "what is TV?") == Unread(spelled=("TV",))
    assert unread_words(model, processor, "what is 大象?") == Unread(unknown=("象",), spelled=("大",))
    (sentence,) = unread_words(model, processor, "zebra what is , this?").sentences()
    assert sentence.endswith("lacks these words: “zebra”, “,”.")


@pytest.mark.parametrize("text", ["\u200b", "\u200b\u200d"])
def test_a_text_of_nothing_to_see(known, text):
    model, processor = known
    sentences = unread_words(model, processor, text).sentences()
    assert len(sentences) == 1


def test_a_word_is_named_once_and_many_are_counted(known):
    assert unread_words(*known, "zebra zebra?").spelled == ("zebra",)
    many = Unread(spelled=tuple(f"word{number}" for number in range(30)))
    (sentence,) = many.sentences()
    assert "word0" in sentence
    assert "word29" not in sentence
    assert "more" in sentence
    for long in (Unread(cut="a " * 500, limit=40), Unread(unknown=("x" * 500,))):
        (sentence,) = long.sentences()
        assert len(sentence) < 250
